"Every notebook teaches: what the reader will be able to do, a recap, exercises with checks and solutions, words that are explained."
import ast
import json
import os
import re
from pathlib import Path

import pytest

from aerialseg.exercises import asking

NBS = Path(__file__).resolve().parents[1] / "nbs"
PAGES = [p for p in sorted(NBS.rglob("*.ipynb")) if ".ipynb_checkpoints" not in p.parts]
LESSONS = [p for folder in ("", "studies", "maps", "real") for p in sorted((NBS / folder).glob("[0-9]*.ipynb"))]
CALL = re.compile(r"check_exercise_(\d+)\(answer_(\d+)\)")


def cells(path: Path, kind: str) -> list[str]:
    return ["".join(c["source"]) for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == kind]


def questions(path: Path) -> dict[int, str]:
    "The text of each exercise of a lesson."
    return {int(m[1]): m[0] for text in cells(path, "markdown") if (m := re.match(r"\*\*Exercise (\d+)\.\*\* .*", text, re.S))}


def solutions() -> dict[tuple[str, int], tuple[int, str]]:
    "For each call of `solution` how many wrong answers it tries, and the question above it."
    found = {}
    for path in sorted((NBS / "solutions").glob("*.ipynb")):
        question = ""
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            text = "".join(cell["source"])
            if cell["cell_type"] == "markdown": question = text
            else:
                for node in ast.walk(ast.parse(text)):
                    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "solution":
                        lesson, number, _, *wrong = node.args
                        assert (lesson.value, number.value) not in found, "solved twice"
                        found[lesson.value, number.value] = len(wrong), question
    return found


@pytest.fixture(scope="module")
def registered():
    "All checks there are."
    for lessons in asking.PARTS.values(): asking.checks(lessons[0])
    return asking.CHECKS


def test_each_exercise_has_its_check_and_its_solution(registered):
    asked = {(p.stem, int(n)) for p in LESSONS for text in cells(p, "code") for n, m in CALL.findall(text) if n == m}
    assert asked == {(p.stem, n) for p in LESSONS for n in questions(p)}, "a question without its cell, or a cell without its question"
    assert asked == set(registered), "a check that no lesson asks, or an exercise without a check"
    assert asked == set(solutions()), "an exercise without a solution, or a solution of nothing"
    assert sorted(p.stem for p in LESSONS) == sorted(l for lessons in asking.PARTS.values() for l in lessons), "a notebook without exercises"


def test_exercises_are_numbered_from_one_and_few():
    for p in LESSONS: assert list(questions(p)) == list(range(1, len(questions(p)) + 1)) and 1 <= len(questions(p)) <= 4, p.name


def test_each_solution_tries_a_wrong_answer_and_repeats_the_question():
    solved = solutions()
    assert [k for k, (wrong, _) in solved.items() if not wrong] == []
    for p in LESSONS:
        for n, text in questions(p).items(): assert solved[p.stem, n][1].endswith(text), f"{p.stem}, exercise {n}: the question differs in the solutions"


def test_each_check_lets_nothing_pass_for_an_answer_but_none(registered, capsys):
    for (lesson, number), check in registered.items():
        check(None)
        assert capsys.readouterr().out == f"Exercise {number}: not tried yet\n"
        for nonsense in (object(), "", [], lambda *a: None):
            with pytest.raises(AssertionError, match=f"Exercise {number}: ."): check(nonsense)


def test_a_lesson_before_its_answers(): # what a reader sees first, and what `nbdev-test` runs
    for p in LESSONS:
        assert [n for t in cells(p, "code") for n in re.findall(r"^answer_(\d+) = None     # \w", t, re.M)] == [str(n) for n in questions(p)], p.name
        outputs = ["".join(o["text"]) for c in json.loads(p.read_text(encoding="utf-8"))["cells"] if CALL.search("".join(c["source"])) for o in c["outputs"]]
        assert outputs == [f"Exercise {n}: not tried yet\n" for n in questions(p)], p.name


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_opening_and_end(path):
    text = cells(path, "markdown")
    assert any("**After this notebook you can** " in t for t in text[1:3]), "it does not open with what the reader will be able to do"
    recap, = [t for t in text if re.search(r"^## Recap$", t, re.M)]
    words = recap[recap.index("## Recap"):].split()
    assert 15 < len(words) < 130, "a recap is three to five lines"
    assert text.index(recap) < next(k for k, t in enumerate(text) if t.startswith("## Exercises"))
    later = LESSONS[LESSONS.index(path) + 1:]
    end = os.path.relpath(later[0] if later else NBS / "index.ipynb", path.parent)
    assert f"]({end})" in text[-1] and re.search(r"\[Solutions\]\(\S*solutions/\w+\.ipynb\)", text[-1]), "the last cell leads to the solutions and on"


# ---------------------------------------------------------------- links and the glossary
def headings(path: Path) -> list[str]: return [m for t in cells(path, "markdown") for m in re.findall(r"^#{1,6} (.+)$", t, re.M)]
def links(path: Path) -> list[str]: return [m for t in cells(path, "markdown") for m in re.findall(r"\]\((?!https?:)([^)\s]+\.ipynb(?:#[^)\s]*)?)\)", t)]


def quarto(heading: str) -> str: # lower case, without punctuation, spaces to hyphens
    return re.sub(r"\s+", "-", re.sub(r"[^\w\s.-]", "", heading).strip()).lower()


def jupyterlab(heading: str) -> str: return heading.replace(" ", "-") # as it is, spaces to hyphens


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(NBS)))
def test_links_lead_somewhere(path):
    for link in links(path):
        page, _, anchor = link.partition("#")
        there = (path.parent / page).resolve()
        assert there.exists(), f"{link}: no such notebook"
        if not anchor: continue
        for slug in (quarto, jupyterlab): assert anchor in map(slug, headings(there)), f"{link}: no heading has this anchor ({slug.__name__})"


def test_each_lesson_links_its_words():
    for p in LESSONS:
        n = sum("glossary.ipynb#" in link for link in links(p))
        assert 1 <= n <= 6, f"{p.name} links {n} words"


def test_each_word_stands_once_and_says_where_it_is_explained():
    terms = [m for t in cells(NBS / "glossary.ipynb", "markdown") for m in re.findall(r"^### (.+)\n\n(.+(?:\n.+)*)", t, re.M)]
    words = [w for w, _ in terms]
    assert len(words) > 80 and len(set(words)) == len(words)
    for word, text in terms:
        assert quarto(word) == jupyterlab(word), f"{word}: the site and JupyterLab would give it different anchors"
        assert re.search(r"\[\w+\]\(\S+\.ipynb\)$", text), f"{word}: no notebook is named"
    listed = [(m, a) for t in cells(NBS / "glossary.ipynb", "markdown") for m, a in re.findall(r"\[([^]]+)\]\(#([^)]+)\)", t)]
    assert listed == [(w, quarto(w)) for w in sorted(words)], "the list from a to z"


def test_glossary_and_instructors_page_are_on_the_front_page():
    assert {"glossary.ipynb", "instructor.ipynb"} <= set(links(NBS / "index.ipynb"))


@pytest.mark.parametrize("heading, minutes", [("Two hours", [120]), ("Two days", [360, 360])])
def test_plans_fill_their_time(heading, minutes):
    plan, = [t for t in cells(NBS / "instructor.ipynb", "markdown") if t.startswith(f"## {heading}")]
    tables = [sum(map(int, re.findall(r"^\| (\d+) \|", part, re.M))) for part in plan.split("| minutes |")[1:]]
    assert tables == minutes


def test_what_notebooks_need_is_known_of_all():
    import pandas as pd
    needs = pd.read_csv(NBS.parent / "bench/notebooks.csv").set_index("notebook")
    assert {p.relative_to(NBS).with_suffix("").as_posix() for p in LESSONS} <= set(needs.index), "run `python bench/notebooks.py` for the others"
    assert (needs.cpu_seconds > 0).all() and needs.peak_mb.between(50, 16_000).all() and (needs.cpu_seconds[[i.startswith("solutions") for i in needs.index]].sum() < 90)
