"""Inputs that are damaged, strange or malicious, and what is done with them, each in a child process with limits.

    python tests/hostile.py FOLDER         all families into FOLDER/results.json
    python tests/hostile.py FOLDER masks   one family, printed

A case harms one good file (or adds one) and drives the real entry points. It must end in a result or in an
`AerialsegError` of one sentence, in time, in little memory, with no byte outside its folder and no code run."""
import importlib
import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import time
import traceback
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

SECONDS, MEMORY = 10, 2 * 2**30      # of a case
FAMILIES: dict[str, dict[str, "Case"]] = {}


@dataclass(frozen=True)
class Case:
    "What is done to the good files, what is driven, and what must be said (a word; ok: it must work; '': either)."
    harm: Callable[[Path], None]
    drive: Callable[[Path], str]
    want: str = ""


def add(family, name, harm, drive, want=""):
    cases = FAMILIES.setdefault(family, {})
    assert name not in cases, name
    cases[name] = Case(harm, drive, want)


# ---- damage

def write(name, data):
    "Put these bytes (or this text) in place of a file."
    def harm(w):
        (w / name).parent.mkdir(parents=True, exist_ok=True)
        (w / name).unlink(missing_ok=True)
        (w / name).write_bytes(data.encode() if isinstance(data, str) else data() if callable(data) else data)
    return harm


def edit(name, change):
    "Change a file's bytes."
    return lambda w: (w / name).write_bytes(change((w / name).read_bytes()))


def lines(name, change):
    "Change a file's list of lines."
    def harm(w):
        rows = (w / name).read_text().splitlines()
        rows = change(rows) or rows
        (w / name).write_text("\n".join(rows) + "\n")
    return harm


def cut(name, share): return edit(name, lambda b: b[:int(len(b) * share)])


def flip(name, seed, bits=3, first=0):
    def change(b):
        b, rng = bytearray(b), random.Random(seed)
        for _ in range(bits): b[rng.randrange(first, len(b))] ^= 1 << rng.randrange(8)
        return bytes(b)
    return edit(name, change)


def damage(family, name, drive, cuts=8, flips=8, bits=3, first=0):
    "The same file cut short at many places, and with bits flipped."
    for k in range(cuts): add(family, f"{Path(name).name} cut at {k}/{cuts}", cut(name, k / cuts), drive)
    for k in range(flips): add(family, f"{Path(name).name} flipped {k}", flip(name, k, bits, first), drive)


def replace_by(name, how):
    "Remove a file and call `how` with its path."
    def harm(w):
        (w / name).unlink()
        how(w / name, w)
    return harm


NO_FILES = {  # what can stand where a file should be
    "nothing": lambda p, w: None, "an empty file": lambda p, w: p.touch(), "a folder": lambda p, w: p.mkdir(),
    "a FIFO": lambda p, w: os.mkfifo(p), "a dangling link": lambda p, w: p.symlink_to("nowhere"),
    "a link to itself": lambda p, w: p.symlink_to(p.name),
    "a loop of links": lambda p, w: (p.symlink_to(p.name + "2"), p.with_name(p.name + "2").symlink_to(p.name)),
    "a link to an endless device": lambda p, w: p.symlink_to("/dev/zero"),
    "binary": lambda p, w: p.write_bytes(bytes(range(256)) * 8),
    "a huge file of zeros": lambda p, w: os.truncate(p.touch() or p, 6 * 2**30),
}


def no_files(family, name, drive, but=()):
    for what, how in NO_FILES.items():
        if what not in but: add(family, f"{Path(name).name} is {what}", replace_by(name, how), drive)


# ---- pictures made by hand

def chunk(kind, data): return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, idat, depth=8, colour=0, *extra):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + chunk(b"IDAT", idat) + chunk(b"IEND", b"")


def zeros(n): return zlib.compress(bytes(n), 1)


def grey(width, height): return zeros((width + 1) * height)


def saved(mode, kind, size=(80, 64), **options):
    "A picture file of this mode."
    from PIL import Image
    out = io.BytesIO()
    Image.new(mode, size).save(out, kind, **options)
    return out.getvalue()


def rotated():
    from PIL import Image
    exif = Image.Exif()
    exif[274] = 6
    return saved("RGB", "JPEG", exif=exif)


def with_app1(payload):
    "A JPEG with an EXIF segment of these bytes."
    plain = saved("RGB", "JPEG")
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 8) + b"Exif\0\0" + payload + plain[2:]


def animated(kind):
    from PIL import Image
    return saved("L", kind, save_all=True, append_images=[Image.new("L", (80, 64), 3)])


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 80 64\n(../../outside/ran) (w) file closefile\nshowpage\n%%EOF\n"

BOMBS = {
    "claims 2^31 by 2^31": lambda: png(2**31 - 1, 2**31 - 1, zeros(99)),
    "claims 60000 by 60000": lambda: png(60000, 60000, zeros(99)),
    "claims 13000 by 13000": lambda: png(13000, 13000, zeros(99)), "has no width": lambda: png(0, 64, zeros(64)),
    "is 10000 by 11000 of nothing": lambda: png(10000, 11000, grey(10000, 11000)),
    "a text that explodes": lambda: png(80, 64, grey(80, 64), 8, 0, chunk(b"zTXt", b"Comment\0\0" + zeros(10**8))),
    "a text that explodes at the end": lambda: png(80, 64, grey(80, 64)).replace(
        chunk(b"IEND", b""), chunk(b"zTXt", b"Comment\0\0" + zeros(10**8)) + chunk(b"IEND", b"")),
    "an international text that explodes": lambda: png(80, 64, grey(80, 64), 8, 0,
    chunk(b"iTXt", b"a\0\1\0\0\0" + zeros(10**8))),
    "a colour profile that explodes": lambda: png(80, 64, grey(80, 64), 8, 0, chunk(b"iCCP", b"a\0\0" + zeros(10**8))),
    "a thousand texts": lambda: png(80, 64, grey(80, 64), 8, 0, *[chunk(b"zTXt", b"c\0\0" + zeros(10**6))] * 1000),
    "pixels that explode": lambda: png(80, 64, zeros(10**8)), "pixels that end early": lambda: png(80, 64, zeros(99)),
    "pixels that are no zlib": lambda: png(80, 64, b"nothing packed"), "no pixels": lambda: png(80, 64, b""),
    "a wrong checksum": lambda: png(80, 64, grey(80, 64))[:-20] + b"\0" * 20,
    "a chunk without end": lambda: png(80, 64, grey(80, 64))[:33] + b"\x7f\xff\xff\xffIDAT",
    "an empty palette": lambda: png(80, 64, grey(80, 64), 8, 3, chunk(b"PLTE", b"")),
    "a palette of a thousand": lambda: png(80, 64, grey(80, 64), 8, 3, chunk(b"PLTE", bytes(3000))),
    "no palette": lambda: png(80, 64, grey(80, 64), 8, 3), "a depth of 3": lambda: png(80, 64, grey(80, 64), 3),
    "a colour type of 9": lambda: png(80, 64, grey(80, 64), 8, 9),
    "4 bits a pixel": lambda: png(80, 64, zeros(41 * 64), 4),
    "2 bits a pixel": lambda: png(80, 64, zeros(21 * 64), 2),
}

FORMATS = {
    **{f"mode {m}": lambda m=m: saved(m, "PNG") for m in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")},
    "16 bits a channel": lambda: png(80, 64, zeros((80 * 6 + 1) * 64), 16, 2), "CMYK": lambda: saved("CMYK", "JPEG"),
    "grey JPEG": lambda: saved("L", "JPEG"), "float TIFF": lambda: saved("F", "TIFF"),
    "LAB TIFF": lambda: saved("LAB", "TIFF"),
    "BMP": lambda: saved("RGB", "BMP"), "GIF": lambda: saved("P", "GIF"), "WebP": lambda: saved("RGB", "WEBP"),
    "PPM": lambda: saved("RGB", "PPM"), "ICO": lambda: saved("RGB", "ICO"), "animated PNG": lambda: animated("PNG"),
    "animated GIF": lambda: animated("GIF"), "animated WebP": lambda: animated("WEBP"),
    "EPS with a program": lambda: EPS,
    "EXIF-rotated": rotated, "broken EXIF": lambda: with_app1(b"II*\0" + b"\xff" * 40),
    "EXIF of noise": lambda: with_app1(bytes(range(200))),
    "endless EXIF": lambda: with_app1(b"II*\0\x08\0\0\0" + b"\xff\xff" + struct.pack("<HHII", 0x8769, 4, 1, 8) * 20),
    "1 by 1": lambda: saved("RGB", "PNG", (1, 1)), "1 by 5000": lambda: saved("RGB", "PNG", (1, 5000)),
    "5000 by 1": lambda: saved("RGB", "PNG", (5000, 1)), "another size": lambda: saved("RGB", "PNG", (64, 80)),
    "text": lambda: b"Sorry, this link has expired.", "a web page": lambda: b"<html><script>alert(1)</script></html>" * 99,
    "a pickle": lambda: b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ftouch ../../outside/ran\x85R.",
    "a zip": lambda: b"PK\x03\x04" + bytes(200), "a signature only": lambda: b"\xff\xd8\xff",
}


# ---- drivers: the real entry points; each returns what it found

def said(call):
    "What a call says: its AerialsegError's sentence, or ok."
    from aerialseg.core import AerialsegError
    try: result = call()
    except AerialsegError as e: return str(e)
    return result if isinstance(result, str) else "ok"


def folder(w):
    "Open, audit, split, and an item of every training frame, faults or not."
    from aerialseg.core import make_recipe
    from aerialseg.dataset import audit, choose_split
    from aerialseg.eda import frame_table
    from aerialseg.folder import open_folder
    from aerialseg.loading import SegmentationDataset
    opened, found, recipe = open_folder(w / "data"), [], make_recipe("tiny", height=32, width=32)
    table = audit(opened, threads=1)
    found += [f"{r.kind} {r.ImageID} {r.detail}" for r in table.itertuples()]
    found.append(said(lambda: choose_split(opened, frame_table(opened, list(opened.train)), recipe) is None))
    items = SegmentationDataset(opened, list(opened.train), recipe, None)
    found += [said(lambda: items[(0, k, -1)]["image"].shape == (32, 32, 3) or "wrong shape") for k in range(len(items))]
    return found


def quick(w):
    "Open, audit and read one frame: for pictures that take long."
    from aerialseg.dataset import audit
    from aerialseg.folder import open_folder
    opened = open_folder(w / "data")
    found = [f"{r.kind} {r.detail}" for r in audit(opened, threads=1).itertuples()]
    return found + [said(lambda: opened.image(opened.train[0]).shape[2] == 3),
    said(lambda: opened.mask(opened.train[0]).ndim == 2)]


def classes(w):
    from aerialseg.core import load_classes, save_classes
    read = load_classes(w / "data/classes.csv")
    save_classes(read, w / "again.csv")
    again = load_classes(w / "again.csv")
    assert (again.names, again.colours) == (read.names, read.colours) and read.palette.shape == (read.n_classes, 3)


def recipe(w):
    from dataclasses import asdict
    from aerialseg.core import load_recipe, open_run, save_json
    read = load_recipe(w / "run/recipe.json")
    save_json(asdict(read), w / "again.json")
    assert load_recipe(w / "again.json") == read == open_run(w / "run").recipe and len(read.fingerprint) == 12


def model(w):
    import torch
    from aerialseg.model import load_model
    net, taxonomy, settings = load_model(w / "run/model")
    with torch.inference_mode(): assert net(torch.zeros(1, 3, 32, 32)).shape == (1, taxonomy.n_classes, 32, 32)


def command(*args):
    "The command line, as a function; paths are relative to the case's folder."
    def drive(w):
        from aerialseg.cli import main
        err, out, was = io.StringIO(), io.StringIO(), (sys.stderr, sys.stdout)
        sys.stderr, sys.stdout = err, out
        try: main([a if a.startswith("-") or "=" in a or a in PLAIN else str(w / a) for a in args])
        except SystemExit as e: code = e.code or 0
        finally: sys.stderr, sys.stdout = was
        assert code in (0, 2), (code, err.getvalue())
        assert "Traceback" not in err.getvalue()
        if code == 0: return "ok " + out.getvalue()
        last = err.getvalue().strip().split("\r")[-1].strip()
        return out.getvalue().splitlines() + [last.removeprefix("aerialseg: ")]
    return drive


PLAIN = ("audit", "check", "predict", "run", "tiny")
predict = command("predict", "./run", "data/imgs/imgs/a.jpg", "--out", "out")


def check(w):
    from aerialseg.folder import open_folder
    from aerialseg.submission import check_submission
    check_submission(w / "submission.csv", open_folder(w / "data"))


def report(w):
    from aerialseg.core import Run, load_recipe
    from aerialseg.report import make_report
    make_report(Run(w / "run", load_recipe(w / "run/recipe.json")))


def both(w):
    "The run and itself on one page."
    from aerialseg.compare_report import make_compare_report
    from aerialseg.core import Run, load_recipe
    run = Run(w / "run", load_recipe(w / "run/recipe.json"))
    make_compare_report(run, run, w / "compare.html")


def resume(w):
    "Training from a checkpoint that is not ours."
    from aerialseg.core import AerialsegError, one_line
    from aerialseg.training import load_checkpoint
    class Trainer: pass
    t = Trainer()
    t.run, t.device = w / "run", "cpu"
    try: load_checkpoint(t)
    except AerialsegError as e: return one_line(e, 600)       # PyTorch's own words, of many lines


def evaluation(w):
    from aerialseg.core import Run, load_recipe
    from aerialseg.evaluation import evaluate
    evaluate(Run(w / "run", load_recipe(w / "run/recipe.json")))


# ---- the cases

IMAGE, MASK = "data/imgs/imgs/a.jpg", "data/masks/masks/a.png"

damage("pictures", IMAGE, folder, 16, 24)
no_files("pictures", IMAGE, folder)
for what, make in {**BOMBS, **FORMATS}.items():
    add("pictures", f"picture: {what}", write(IMAGE, make), quick if "11000" in what else folder)
damage("masks", MASK, folder, 16, 24, 1)
no_files("masks", MASK, folder)
for what, make in {**BOMBS, **FORMATS}.items():
    add("masks", f"mask: {what}", write(MASK, make), quick if "11000" in what else folder)


def mask_of(value):
    def make():
        from PIL import Image
        out = io.BytesIO()
        Image.new("L", (80, 64), value).save(out, "PNG")
        return out.getvalue()
    return make


def each_mask(value):
    return lambda w: [p.write_bytes(mask_of(value)()) for p in sorted((w / "data/masks/masks").iterdir())]


for value, want in ((0, ""), (12, "unknown_id"), (254, "unknown_id"), (255, "")):
    add("masks", f"mask: all {value}", write(MASK, mask_of(value)), folder, want)
    add("masks", f"masks: all {value}", each_mask(value), folder, want)


def link(name, target, outside=True):
    "A file that is a symbolic link."
    def harm(w):
        if outside: shutil.copy(w / name, w.parent / "outside/secret.jpg")
        (w / name).unlink()
        (w / name).symlink_to(target)
    return harm


def moved(name):
    "A whole folder moved out and linked back in."
    def harm(w):
        shutil.copytree(w / name, w.parent / "outside" / "moved", dirs_exist_ok=True)
        shutil.rmtree(w / name)
        (w / name).symlink_to("../" * (name.count("/") + 1) + "../outside/moved")
    return harm


add("files", "link out of the folder", link(IMAGE, "../../../../outside/secret.jpg"), folder, "missing_image")
add("files", "absolute link", link(IMAGE, "/etc/passwd", False), folder, "missing_image")
add("files", "link to another frame", link(IMAGE, "b.jpg", False), folder)
add("files", "link up and in again", link(IMAGE, "../../../data/imgs/imgs/b.jpg", False), folder)
add("files", "pictures' folder is a link out", moved("data/imgs/imgs"), folder, "leads out")
add("files", "masks' folder is a link out", moved("data/masks/masks"), folder, "leads out")
add("files", "pictures' folder is a file", lambda w: (shutil.rmtree(w / "data/imgs"), (w / "data/imgs").touch()),
    folder, "no pictures")
add("files", "pictures' folder loops", lambda w: (shutil.rmtree(w / "data/imgs/imgs"),
    (w / "data/imgs/imgs").symlink_to("../imgs")), folder)
add("files", "the data folder is a file", lambda w: (shutil.rmtree(w / "data"), (w / "data").touch()), folder,
    "not a folder")
add("files", "the data folder loops", lambda w: (shutil.rmtree(w / "data"), (w / "data").symlink_to("data")), folder,
    "not a folder")
add("files", "two pictures of one name", lambda w: shutil.copy(w / IMAGE, w / "data/imgs/imgs/a.PNG"), folder,
    "remove one")
add("files", "a hidden picture", lambda w: shutil.copy(w / IMAGE, w / "data/imgs/imgs/.a.jpg"), folder, "ok")
add("files", "a name that is no text", lambda w: shutil.copy(w / IMAGE,
    os.fsencode(w / "data/imgs/imgs") + b"/\xff\xfe.jpg"), folder, "unlisted_image")
add("files", "a name with a line break", lambda w: shutil.copy(w / IMAGE, w / "data/imgs/imgs/a\nb.jpg"), folder,
    "unlisted_image")
add("files", "a name with terminal codes", lambda w: shutil.copy(w / IMAGE, w / "data/imgs/imgs/a\x1b[2J.jpg"), folder,
    "unlisted_image")
for name in ("x" * 5000, "a\0b", "~", "", "//", "\n"):
    def far(w, name=name):
        from aerialseg.folder import open_folder
        open_folder(name)
    add("files", f"folder named {name[:9]!r}", lambda w: None, far)

LISTS = {
    "empty": "", "a header only": "ImageID\n", "no header": "a\nb\n", "another header": "id\na\nb\n",
    "a header with spaces": " ImageID \na\n",
    "a header in small letters": "imageid\na\n", "the header twice": "ImageID,ImageID\na,b\nb,a\n",
    "the header as a row": "ImageID\nImageID\na\n",
    "BOM": b"\xef\xbb\xbfImageID\na\nb\nc\n", "CRLF": "ImageID\r\na\r\nb\r\nc\r\n", "CR": "ImageID\ra\rb\rc\r",
    "UTF-16": "ImageID\na\nb\nc\n".encode("utf-16"),
    "UTF-32": "ImageID\na\nb\n".encode("utf-32"), "Latin-1": "ImageID\nä\n".encode("latin-1"),
    "binary": bytes(range(256)) * 9,
    "quotes": 'ImageID\n"a"\n"b"\n"c"\n', "a quote without end": 'ImageID\n"a\nb\nc\n',
    "two columns": "ImageID,note\na,x\nb,y\nc,z\n",
    "a comma too many": "ImageID\na,x\nb,y\nc,z\n", "commas in one row": "ImageID\na\nb,,,,\nc\n",
    "spaces around": "ImageID\n a\nb \n",
    "blank lines": "ImageID\n\n\na\n\nb\nc\n\n", "a comment": "# list\nImageID\na\n", "an empty id": 'ImageID\na\n""\n',
    "a formula": "ImageID\n=cmd|' /C calc'!A0\na\n",
    "at and plus": "ImageID\n@SUM(1)\n+1\n-1\na\n", "up": "ImageID\n../../outside/secret\na\n",
    "absolute": "ImageID\n/etc/passwd\na\n",
    "a drive": "ImageID\nC:\\windows\\a\na\n", "dot": "ImageID\n.\n..\na\n", "NUL": b"ImageID\na\0b\nb\n",
    "NUL only": b"\0\0\0\0",
    "a line break in an id": 'ImageID\n"a\nb"\nb\n', "terminal codes": "ImageID\na\x1b[31mb\nb\n",
    "a long id": "ImageID\n" + "x" * 100_000 + "\na\n",
    "one gigantic line": "ImageID," + "x" * 3_000_000, "a hundred thousand columns": "ImageID" + ",x" * 100_000 + "\na\n",
    "look-alikes": "ImageID\nа\nｂ\nc\u200b\n", "wide digits": "ImageID\n１\n٢\n", "right to left": "ImageID\n\u202eb\n",
    "a float": "ImageID\n1.0\n2.5e300\n",
    "a huge number": "ImageID\n" + "9" * 400 + "\n", "NA": "ImageID\nNA\nnull\nnan\n",
    "one twice": "ImageID\na\na\nb\n", "in both": "ImageID\na\nb\nt\n",
    "a script": "ImageID\n<script>alert(1)</script>\na\n", "JSON": '{"ImageID": ["a"]}',
    "a web page": "<html>404</html>", "tabs": "ImageID\tx\na\tb\n",
    "semicolons": "ImageID;x\na;b\n", "one frame": "ImageID\na\n",
    "surrogates": "ImageID\na\ud800\n".encode("utf-8", "surrogatepass"),
    "a zip": b"PK\x03\x04" + bytes(100), "gzip": b"\x1f\x8b\x08" + bytes(100),
}
SAID = {"empty": "train.csv", "a header only": "no training", "another header": "no column ImageID",
    "the header twice": "twice", "BOM": "ok", "CRLF": "ok",
        "CR": "ok", "quotes": "ok", "two columns": "ok", "UTF-16": "train.csv", "up": "strange_id",
        "absolute": "strange_id", "a drive": "strange_id",
        "dot": "strange_id", "NUL": "strange_id", "a line break in an id": "strange_id", "terminal codes": "strange_id",
        "a long id": "strange_id",
        "look-alikes": "missing_image", "an empty id": "strange_id", "a formula": "strange_id",
        "at and plus": "formula_id", "one twice": "duplicate_id",
        "in both": "in_both", "one frame": "two are the least", "a comma too many": "train.csv",
        "right to left": "strange_id", "NA": "missing_image NA"}
for what, data in LISTS.items(): add("lists", f"train.csv: {what}", write("data/train.csv", data), folder,
    SAID.get(what, ""))
for what in list(LISTS)[::3]: add("lists", f"test.csv: {what}", write("data/test.csv", LISTS[what]), folder)
damage("lists", "data/train.csv", folder, 4, 8)
no_files("lists", "data/train.csv", folder)
no_files("lists", "data/test.csv", folder)

HEAD = "id,name,colour\n"
CLASSES = {
    "empty": "", "header only": HEAD, "one class": HEAD + "0,a,#000000\n", "a gap": HEAD + "0,a,#000000\n2,b,#000000\n",
    "ids as floats": HEAD + "0.0,a,#000000\n1.0,b,#000000\n",
    "another order": HEAD + "1,a,#000000\n0,b,#000000\n", "a name twice": HEAD + "0,a,#000000\n1,a,#000000\n",
    "no name": HEAD + "0,,#000000\n1,b,#000000\n",
    "a name of spaces": HEAD + "0, ,#000000\n1,b,#000000\n", "a colour's name": HEAD + "0,a,red\n1,b,blue\n",
    "a short colour": HEAD + "0,a,#fff\n1,b,#000\n",
    "a colour that is style": HEAD + '0,a,"#000000;background:url(//evil)"\n1,b,#000000\n',
    "no colour": HEAD + "0,a\n1,b\n", "a colour missing once": HEAD + "0,a,#000000\n1,b\n",
    "four fields": HEAD + "0,a,#000000,x\n1,b,#000000,y\n", "the header twice": "id,name,name,colour\n0,a,b,#000000\n",
    "another header": "number,name,colour\n0,a,#000000\n",
    "BOM": "\ufeff" + HEAD + "0,a,#000000\n1,b,#000000\n", "CRLF": (HEAD + "0,a,#000000\n1,b,#000000\n").replace("\n",
    "\r\n"),
    "UTF-16": (HEAD + "0,a,#000000\n1,b,#000000\n").encode("utf-16"), "binary": bytes(range(256)),
    "NUL": HEAD.encode() + b"0,a\0b,#000000\n1,b,#000000\n",
    "a formula": HEAD + "0,=cmd|' /C calc'!A0,#000000\n1,b,#000000\n",
    "an at": HEAD + "0,@SUM(A1),#000000\n1,b,#000000\n", "a minus": HEAD + "0,-1+1,#000000\n1,b,#000000\n",
    "a script": HEAD + "0,<script>alert(1)</script>,#000000\n1,b,#000000\n",
    "commas and quotes": HEAD + '0,"a, ""b""",#000000\n1,b,#000000\n',
    "unicode": HEAD + "0,Straße 路,#000000\n1,b,#000000\n",
    "a line break": HEAD + '0,"a\nb",#000000\n1,b,#000000\n',
    "a path": HEAD + "0,../../outside/ran,#000000\n1,b,#000000\n",
    "terminal codes": HEAD + "0,a\x1b[2J,#000000\n1,b,#000000\n",
    "a long name": HEAD + f"0,{'x' * 10**6},#000000\n1,b,#000000\n", "NA": HEAD + "0,NA,#000000\n1,null,#000000\n",
    "256 classes": HEAD + "".join(f"{i},c{i},#000000\n" for i in range(256)),
    "255 classes": HEAD + "".join(f"{i},c{i},#000000\n" for i in range(255)), "a gigantic line": HEAD + "x" * 3_000_000,
    "a quote without end": HEAD + '0,"a,#000000\n1,b,#000000\n',
    "wide digits": HEAD + "٠,a,#000000\n١,b,#000000\n", "right to left": HEAD + "0,a\u202eb,#000000\n1,b,#000000\n",
    "JSON": '{"names": ["a"]}', "a huge id": HEAD + "9" * 5000 + ",a,#000000\n1,b,#000000\n",
}
OK = ("BOM", "CRLF", "a script", "commas and quotes", "unicode", "a path", "NA", "255 classes")
for what, data in CLASSES.items(): add("classes", f"classes.csv: {what}", write("data/classes.csv", data), classes,
    "ok" if what in OK else "classes.csv")
damage("classes", "data/classes.csv", classes, 8, 12)
damage("classes", "data/classes.csv", folder, 0, 0)
no_files("classes", "data/classes.csv", classes)

SCENES = "ImageID,flight,frame,altitude_m,pitch_deg,gsd_m,season\n"
FLIGHTS = {
    "empty": "", "header only": SCENES, "no ImageID": "id,flight\na,1\nb,2\nc,3\nt,4\n",
    "no flight": "ImageID\na\nb\nc\nt\n", "a frame missing": "ImageID,flight\na,1\n",
    "flights empty": "ImageID,flight\na,\nb,\nc,\nt,\n",
    "a frame twice": "ImageID,flight\na,1\na,2\nb,1\nc,2\nt,3\n", "one flight": "ImageID,flight\na,1\nb,1\nc,1\nt,1\n",
    "a formula": "ImageID,flight\na,=1+1\nb,=1+1\nc,2\nt,3\n",
    "text for metres": "ImageID,flight,altitude_m\na,1,high\nb,1,low\nc,2,3\nt,3,4\n",
    "no number for metres": "ImageID,flight,altitude_m\na,1,nan\nb,1,inf\nc,2,-1e999\nt,3,4\n",
    "a comma too many": "ImageID,flight\na,1,x\nb,1,x\nc,2,x\nt,3,x\n",
    "the header twice": "ImageID,flight,flight\na,1,2\nb,1,2\nc,2,1\nt,1,1\n", "binary": bytes(range(256)),
    "UTF-16": SCENES.encode("utf-16"),
    "a path": "ImageID,flight\na,../../x\nb,../../x\nc,/etc\nt,3\n",
    "a line break": 'ImageID,flight\na,"1\n2"\nb,1\nc,2\nt,3\n', "floats": "ImageID,flight\na,1.0\nb,1\nc,2\nt,3\n",
}
for what, data in FLIGHTS.items(): add("scenes", f"scenes.csv: {what}", write("data/scenes.csv", data), folder)
no_files("scenes", "data/scenes.csv", folder)


def aeroscapes(change):
    "The same pictures in AeroScapes' layout, then changed."
    def harm(w):
        d = w / "data"
        for name in ("train.csv", "test.csv", "scenes.csv", "sampleSubmission.csv", "classes.csv"): (d / name).unlink()
        (d / "imgs/imgs").rename(d / "JPEGImages")
        (d / "masks/masks").rename(d / "SegmentationClass")
        (d / "ImageSets").mkdir()
        (d / "ImageSets/trn.txt").write_text("a\nb\nc\n")
        (d / "ImageSets/val.txt").write_text("t\n")
        change(w)
    return harm


TRN = "data/ImageSets/trn.txt"
add("aeroscapes", "as it is", aeroscapes(lambda w: None), folder, "ok")
for what, how in NO_FILES.items(): add("aeroscapes", f"trn.txt is {what}", aeroscapes(replace_by(TRN, how)), folder)
for what in ("UTF-16", "Latin-1", "up", "absolute", "NUL", "look-alikes", "terminal codes", "a long id",
    "one gigantic line", "BOM"):
    add("aeroscapes", f"trn.txt: {what}", aeroscapes(write(TRN, LISTS[what])), folder)

DEEP = "[" * 200_000 + "]" * 200_000
JSONS = {
    "empty": "", "null": "null", "a list": "[]", "a number": "1", "text": '"x"', "an empty object": "{}",
    "deep lists": DEEP, "deep objects": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "half": '{"profile": "ti', "BOM": b"\xef\xbb\xbf{}", "UTF-16": '{"a": 1}'.encode("utf-16"),
    "binary": bytes(range(256)), "NaN": '{"profile": NaN}', "a huge number": '{"seed": 1e99999}',
    "a number without end": '{"seed": ' + "9" * 100_000 + "}", "two objects": "{}{}", "a pickle": FORMATS["a pickle"](),
    "NUL": b'{"a\0": 1}', "a lone surrogate": '{"profile": "\\ud800"}',
}


def setting(name, value, file="run/recipe.json", inside=None):
    "One setting of a JSON file."
    def harm(w):
        whole = json.loads((w / file).read_text())
        part = whole[inside] if inside else whole
        if value is KeyError: part.pop(name)
        else: part[name] = value
        (w / file).write_text(json.dumps(whole))
    return harm


for what, data in JSONS.items(): add("recipes", f"recipe.json: {what}", write("run/recipe.json", data), recipe,
    "recipe.json" if what != "NaN" else "")
VALUES = {"seed": (-1, 2**80, 1.5, "1", True, None, [1], {}, float("nan")),
    "lr": (0, -1.0, float("inf"), float("nan"), "1e-3", 1), "profile": (None, {}, [], 5, "turbo", "../tiny"),
          "decoder_channels": ([1.5], ["a"], [[1]], [None], [-1], [10**9], 7, "12", {}, [True]), "arch": (5, None),
          "device": (None, 1), "valid_share": (0.0, 1.0, 5), "overlap": (512, 8192),
          "ce_weight": (float("nan"),), "unknown": (1,), "__class__": (1,), "encoder": (["os"], KeyError),
          "tta": ("D4", None), "ema": (1.0,), "channels_last": (0, "true"), "checkpointing": (1, "yes"), "data": (5, None)}
for name, values in VALUES.items():
    for v in values: add("recipes", f"{name}={'missing' if v is KeyError else repr(v)}", setting(name, v), recipe,
    "recipe.json")
damage("recipes", "run/recipe.json", recipe, 4, 12)
no_files("recipes", "run/recipe.json", recipe)

INFO, POST = "run/model/aerialseg.json", "run/postprocess.json"
for what, data in JSONS.items():
    add("models", f"aerialseg.json: {what}", write(INFO, data), model, "aerialseg.json")
    add("models", f"postprocess.json: {what}", write(POST, data), predict,
    "" if data and "{" in str(data)[:3] else "postprocess.json")
    add("models", f"config.json: {what}", write("run/model/config.json", data), model)
add("models", "config.json: a program", write("run/model/config.json",
    '{"_target_": "os.system", "command": "touch ../outside/ran", "_model_class": "os.system"}'), model, "ok")
for name, value in (("names", 5), ("names", []), ("names", ["a"]), ("names", ["a"] * 12), ("names", [1] * 12),
    ("names", ["x"] * 10**5), ("names", KeyError), ("colours", []), ("colours", ["red"] * 12),
                    ("colours", [5] * 12), ("colours", KeyError), ("name", None), ("name", KeyError),
                    ("name", "../../x")):
    shown = "missing" if value is KeyError else repr(value)[:20] + (f" {len(value)}" if isinstance(value, list) else "")
    add("models", f"taxonomy {name}={shown}", setting(name, value, INFO, "taxonomy"), model)
for name, value in (("arch", 5), ("arch", "unet"), ("arch", "../x"), ("arch", "os.system"), ("encoder", 5),
    ("encoder", "tu-hf_hub:evil/model"), ("encoder", "tu-resnet18.hf-hub:evil/model"),
                    ("encoder", "tu-resnet18.x://evil/model"), ("encoder", "tu-local-dir:/tmp"),
                    ("encoder", "tu-resnet18.local-dir:/tmp"), ("encoder", "hf-hub:evil/model"), ("encoder", "tu-"),
                    ("encoder", "x" * 10**6), ("encoder", "resnet18\n"), ("decoder_channels", "12345"),
                    ("decoder_channels", [10**9] * 5), ("decoder_channels", [4096] * 5), ("decoder_channels", None),
                    ("decoder_channels", [[1]]), ("decoder_channels", KeyError), ("arch", KeyError)):
    def both(w, name=name, value=value):
        setting("arch", "unet", INFO, "recipe")(w)
        if name == "encoder" or name == "decoder_channels": setting("encoder", "resnet18", INFO, "recipe")(w)
        setting(name, value, INFO, "recipe")(w)
    add("models", f"model {name}={'missing' if value is KeyError else repr(value)[:32]}", both, model, "run/model")
for what, value in {"a list": [], "text": "x", "a number": 5, "null": None, "texts": {"background": "x"},
    "too few": {"background": 0.1}, "nested": {"background": {}},
                    "null inside": dict.fromkeys("abcdefghijkl"), "huge": dict.fromkeys("abcdefghijkl", 1e308),
                    "other classes": dict.fromkeys("abcdefghijkl", 0.1),
                    "booleans": dict.fromkeys("abcdefghijkl", True),
                    "not numbers": dict.fromkeys("abcdefghijkl", float("nan"))}.items():
    add("models", f"presence is {what}", setting("presence", value, POST), predict)
damage("models", INFO, model, 4, 8)
damage("models", POST, predict, 4, 4)
no_files("models", INFO, model)
no_files("models", POST, predict)

WEIGHTS = "run/model/model.safetensors"


class Evil:
    "A pickle that leaves a file behind when it is loaded."
    def __reduce__(self): return open, (str(Path("../outside/ran")), "w")


def pickled(name):
    def harm(w):
        import torch
        (w / name).parent.mkdir(exist_ok=True)
        torch.save({"recipe": Evil(), "state_dict": Evil()}, w / name)
    return harm


def plain_pickle(name):
    def harm(w):
        import pickle
        (w / name).parent.mkdir(exist_ok=True)
        (w / name).write_bytes(pickle.dumps(Evil()))
    return harm


def header(size, text=b"{}"): return struct.pack("<Q", size) + text


def tensors(change):
    def harm(w):
        from safetensors.torch import load_file, save_file
        state = load_file(w / WEIGHTS)
        state = change(state) or state
        save_file(state, w / WEIGHTS)
    return harm


damage("weights", WEIGHTS, model, 12, 6)
damage("weights", WEIGHTS, model, 0, 0)
for k in range(12): add("weights", f"header flipped {k}", edit(WEIGHTS, lambda b, k=k: flip_head(b, k)), model)


def flip_head(b, seed):
    b, rng = bytearray(b), random.Random(seed)
    b[rng.randrange(600)] ^= 1 << rng.randrange(8)
    return bytes(b)


no_files("weights", WEIGHTS, model)
for what, data in {"a header of 2^63 bytes": header(2**63), "a header of 100 MB": header(10**8),
    "an empty header": header(0, b""), "a header that is no JSON": header(4, b"abcd"), "no tensors": header(2),
                   "a header of deep lists": lambda: header(400_000, DEEP.encode()),
                   "offsets beyond the end": lambda: (lambda h: header(len(h),
                   h))(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,999999999999]}}'),
                   "a huge shape": lambda: (lambda h: header(len(h),
                   h))(b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'),
                   "a zip": b"PK\x03\x04" + bytes(300)}.items():
    add("weights", f"safetensors: {what}", write(WEIGHTS, data), model, "model.safetensors")
add("weights", "safetensors is a checkpoint", pickled(WEIGHTS), model, "model.safetensors")
add("weights", "safetensors is a pickle", plain_pickle(WEIGHTS), model, "model.safetensors")
for name in ("pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"):
    def only(w, name=name):
        pickled(f"run/model/{name}")(w)
        (w / WEIGHTS).unlink()
    add("weights", f"only {name}", only, model, "model.safetensors")
add("weights", "a tensor missing", tensors(lambda s: s.pop("head.bias") is None), model, "model.safetensors")
add("weights", "a tensor too many", tensors(lambda s: {**s, "x": s["head.bias"].clone()}), model, "model.safetensors")
add("weights", "another shape", tensors(lambda s: {**s, "head.bias": s["head.bias"][:3].clone()}), model,
    "model.safetensors")
add("weights", "whole numbers", tensors(lambda s: {k: v.long() for k, v in s.items()}), model)
add("weights", "not finite", tensors(lambda s: {k: v * float("nan") if v.is_floating_point() else v for k,
    v in s.items()}), model, "finite")
add("weights", "last.pt with a program", pickled("run/checkpoint/last.pt"), resume, "last.pt")
add("weights", "last.pt is a pickle", plain_pickle("run/checkpoint/last.pt"), resume, "last.pt")

SUB, SAMPLE = "submission.csv", "data/sampleSubmission.csv"
SUBMISSIONS = {
    "empty": write(SUB, ""), "header only": write(SUB, "ImageID,EncodedPixels\n"),
    "no header": lines(SUB, lambda x: x.pop(0)), "another header": lines(SUB, lambda x: x.__setitem__(0, "id,rle")),
    "BOM": edit(SUB, lambda b: b"\xef\xbb\xbf" + b), "CRLF": edit(SUB, lambda b: b.replace(b"\n", b"\r\n")),
    "CR": edit(SUB, lambda b: b.replace(b"\n", b"\r")),
    "UTF-16": edit(SUB, lambda b: b.decode().encode("utf-16")), "binary": write(SUB, bytes(range(256)) * 99),
    "quotes": lines(SUB, lambda x: x[:1] + [f'"{r.split(",")[0]}","{r.split(",")[1]}"' for r in x[1:]]),
    "a quote without end": lines(SUB, lambda x: x.__setitem__(1, '"' + x[1])),
    "a formula": lines(SUB, lambda x: x.__setitem__(1, "=cmd|' /C calc'!A0,")),
    "rows twice": lines(SUB, lambda x: x + x[1:]),
    "the header twice": lines(SUB, lambda x: x[:1] + x), "NUL": edit(SUB, lambda b: b.replace(b",", b",\0", 5)),
    "a row that never ends": edit(SUB, lambda b: b[:40] + b"1 1 " * 30_000_000),
    "a number that never ends": lines(SUB, lambda x: x.__setitem__(1, x[1].split(",")[0] + "," + "9" * 5_000_000)),
    "a million runs": lines(SUB, lambda x: x.__setitem__(1, x[1].split(",")[0] + "," + "1 1 " * 1_000_000)),
    "floats": edit(SUB, lambda b: b.replace(b" ", b".0 ")), "negative": lines(SUB,
    lambda x: x.__setitem__(1, x[1].split(",")[0] + ",-5 3")),
    "wide digits": lines(SUB, lambda x: x.__setitem__(1, x[1].split(",")[0] + ",１ ３")),
    "exponents": lines(SUB, lambda x: x.__setitem__(1, x[1].split(",")[0] + ",1e3 5")),
    "beyond 64 bits": lines(SUB, lambda x: x.__setitem__(1, x[1].split(",")[0] + ",1 99999999999999999999")),
    "hexadecimal": lines(SUB, lambda x: x.__setitem__(1, x[1].split(",")[0] + ",0x1 0x5")),
    "NA": lines(SUB, lambda x: x.__setitem__(1, x[1].split(",")[0] + ",nan")),
    "a line break in a name": lines(SUB, lambda x: x.__setitem__(1, '"a\nb",1 1')),
    "terminal codes": lines(SUB, lambda x: x.__setitem__(1, "\x1b[2Jx_0,")),
    "a long name": lines(SUB, lambda x: x.__setitem__(1, "x" * 10**6 + ",")),
    "semicolons": edit(SUB, lambda b: b.replace(b",", b";")),
    "blank lines": edit(SUB, lambda b: b.replace(b"\n", b"\n\n")),
    "spaces": edit(SUB, lambda b: b.replace(b",", b", ")), "a script": lines(SUB,
    lambda x: x.__setitem__(1, "<script>alert(1)</script>,")),
    "many fields": lines(SUB, lambda x: x.__setitem__(1, "," * 10**6)), "JSON": write(SUB, "{}"),
    "gzip": write(SUB, b"\x1f\x8b\x08" + bytes(100)),
}
for what, harm in SUBMISSIONS.items(): add("submissions", f"submission.csv: {what}", harm, check,
    "ok" if what in ("BOM", "CRLF", "quotes", "blank lines") else "" if what in ("CR", "spaces") else "submission.csv")
damage("submissions", SUB, check, 8, 24, 2)
no_files("submissions", SUB, check)
SAMPLES = {
    "empty": write(SAMPLE, ""), "header only": write(SAMPLE, "ImageID,EncodedPixels\n"),
    "one column": lines(SAMPLE, lambda x: [r.split(",")[0] for r in x]),
    "a comma too many": lines(SAMPLE, lambda x: x[:1] + [r + ",x" for r in x[1:]]),
    "half": lines(SAMPLE, lambda x: x[:len(x) // 2]), "mixed": lines(SAMPLE,
    lambda x: x[:1] + sorted(x[1:], key=lambda r: r.split(",")[0][::-1])),
    "no classes": lines(SAMPLE, lambda x: x[:1] + [r.split("_")[0] + "," for r in x[1:]]),
    "classes as text": lines(SAMPLE, lambda x: x[:1] + [r.replace("_", "_c") for r in x[1:]]),
    "rows twice": lines(SAMPLE, lambda x: x + x[1:]), "UTF-16": edit(SAMPLE, lambda b: b.decode().encode("utf-16")),
    "binary": write(SAMPLE, bytes(range(256))), "ids as paths": lines(SAMPLE,
    lambda x: x[:1] + ["../" + r for r in x[1:]]), "a huge class": lines(SAMPLE,
    lambda x: x[:2] + [x[1].split("_")[0] + "_" + "9" * 10**5 + ","] + x[2:]),
    "wide digits": lines(SAMPLE, lambda x: x[:1] + [r.replace("_1,", "_１,") for r in x[1:]]),
    "a hundred thousand frames": lines(SAMPLE, lambda x: x[:1] + [f"{i}_{c}," for i in range(10**5) for c in (0, 1)]),
    "BOM": edit(SAMPLE, lambda b: b"\xef\xbb\xbf" + b),
}
for what, harm in SAMPLES.items(): add("submissions", f"sampleSubmission.csv: {what}", harm, check)
damage("submissions", SAMPLE, check, 4, 8)
no_files("submissions", SAMPLE, check)
add("submissions", "a test picture that claims 10000 by 11000", lambda w: (
    write("data/imgs/imgs/t.jpg", png(10000, 11000, zeros(9)))(w),
    lines(SUB, lambda x: [x[0], "t_0,1 110000000", *[f"t_{c}," for c in range(1, 12)]])(w)), check)
add("submissions", "a test picture that is gone", lambda w: (w / "data/imgs/imgs/t.jpg").unlink(), check, "no picture")

RUN_FILES = ("metrics.json", "manifest.json", "audit.json")
for name in RUN_FILES:
    for what in ("empty", "null", "a list", "an empty object", "deep lists", "half", "a number"): add("reports",
    f"{name}: {what}", write(f"run/{name}", JSONS[what]), report)
for part, values in {"scores": (None, {}, {"mean_dice": {}}, {"mean_dice": {"value": "x", "interval": [0, 1]}}),
    "classes": (None, [], {"a": {}}, {"a": {"iou": "1", "dice": 1, "pixel_share": 1, "image_share": 1}}),
                     "floors": (None, [], {"x": 1}, {"all_empty": "x"}), "absent": (None, 5, [1])}.items():
    for v in values: add("reports", f"metrics {part}={str(v)[:40]}", setting(part, v, "run/metrics.json"), report)
for what in ("empty", "header only", "binary", "UTF-16"):
    add("reports", f"history.csv: {what}", write("run/history.csv",
    {"header only": "epoch,miou\n"}.get(what, LISTS.get(what, b""))), report)
add("reports", "history.csv of texts", write("run/history.csv", "epoch,miou\n1,high\n2,low\n3,<script>\n"), report)
add("reports", "a figure that is a link out", lambda w: (w / "run/figures/eval_x.png").symlink_to("/etc/passwd"),
    report, "ok")
add("reports", "a figure that is a FIFO", lambda w: os.mkfifo(w / "run/figures/eval_x.png"), report, "ok")
add("reports", "a figure that is a folder", lambda w: (w / "run/figures/eval_x.png").mkdir(), report, "ok")
for what in ("empty", "a header only", "another header", "UTF-16", "binary", "NUL"):
    add("reports", f"split.csv: {what}", write("run/split.csv", LISTS[what]), evaluation, "split.csv")
add("reports", "split.csv with strangers", write("run/split.csv", "ImageID,split,group\n../../x,valid,1\na,train,2\n"),
    evaluation, "../../x")
for name in ("metrics.json", "history.csv"): no_files("reports", f"run/{name}", report)
for name, drive in (("gallery.npz", report), ("counts.npz", report), ("gallery.npz", both), ("counts.npz", both)):
    damage("reports" if drive is report else "comparisons", f"run/{name}", drive, 4, 6)
    no_files("reports" if drive is report else "comparisons", f"run/{name}", drive)


def arrays(name, **changed):
    "Other arrays in an archive of the run: bytes, or what a function of (what was there, NumPy) makes; None removes."
    def harm(w):
        import numpy as np
        with np.load(w / name) as f: found = dict(f)
        for k, v in changed.items(): found[k] = v(found.get(k), np) if callable(v) else v if v is None else np.frombuffer(v, np.uint8)
        np.savez(w / name, **{k: v for k, v in found.items() if v is not None})
    return harm


def shaped(*shape):
    "An archive whose array claims a shape that its bytes don't have."
    def harm(w):
        import zipfile
        head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape!r}, }}".encode().ljust(117) + b"\n"
        with zipfile.ZipFile(w / "run/gallery.npz", "w") as z: z.writestr("ImageID.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + b"x")
    return harm


def endless(w):
    import numpy as np
    np.savez_compressed(w / "run/gallery.npz", ImageID=np.zeros(2**30 + 1, np.uint8))


for what, harm in {"no picture": arrays("run/gallery.npz", image_0=None), "a picture of text": arrays("run/gallery.npz", pred_0=b"<svg>"),
    "a picture of another size": arrays("run/gallery.npz", pred_0=png(3, 3, grey(3, 3))),
    "a mask that claims 10000 by 11000": arrays("run/gallery.npz", mask_0=png(10000, 11000, zeros(9))),
    "names that are numbers": arrays("run/gallery.npz", ImageID=lambda _, np: np.arange(1)),
    "objects": arrays("run/gallery.npz", ImageID=lambda _, np: np.array([{}], object)),
    "scores that are text": arrays("run/gallery.npz", dice=lambda _, np: np.array(["x"])),
    "endless names": arrays("run/gallery.npz", ImageID=lambda _, np: np.array(["<" * 10**6])),
    "an array without end": shaped(10**15), "an array of 100 GB": shaped(10**11), "a negative array": shaped(-1), "zeros without end": endless}.items():
    add("reports", f"gallery.npz: {what}", harm, report)
none = {k: lambda v, _: v[:0] for k in ("ImageID", "group", "counts", "confusion")}
for what, harm in {"other shapes": arrays("run/counts.npz", counts=lambda _, np: np.zeros((2, 2))), "no groups": arrays("run/counts.npz", group=None),
    "counts that are text": arrays("run/counts.npz", counts=lambda c, _: c.astype(str)), "no frames": arrays("run/counts.npz", **none),
    "not numbers": arrays("run/counts.npz", counts=lambda c, np: c * np.nan), "other classes": arrays("run/counts.npz", classes=lambda c, _: c[::-1])}.items():
    for drive, family in ((report, "reports"), (both, "comparisons")): add(family, f"counts.npz: {what}", harm, drive)

add("commands", "audit", lambda w: None, command("audit", "data"), "ok")
add("commands", "audit of broken pictures", write(IMAGE, b"x"), command("audit", "data"), "faults")
add("commands", "audit of an id with a line break", write("data/train.csv", LISTS["a line break in an id"]),
    command("audit", "data"), "strange_id")
add("commands", "audit of an id with terminal codes", write("data/train.csv", LISTS["terminal codes"]),
    command("audit", "data"), "strange_id")
add("commands", "check", lambda w: None, command("check", "submission.csv", "--data", "data"), "ok")
add("commands", "check of a FIFO", replace_by(SUB, NO_FILES["a FIFO"]),
    command("check", "submission.csv", "--data", "data"), "submission.csv")
add("commands", "predict", lambda w: None, predict, "ok")
add("commands", "predict a text", write(IMAGE, b"x"), predict, "a.jpg")
add("commands", "predict a FIFO", replace_by(IMAGE, NO_FILES["a FIFO"]), predict, "a.jpg")
add("commands", "predict an EPS", write(IMAGE, EPS), predict, "a.jpg")
add("commands", "predict a bomb", write(IMAGE, BOMBS["claims 60000 by 60000"]), predict, "a.jpg")
add("commands", "predict with a pickle for weights", pickled(WEIGHTS), predict, "model.safetensors")
add("commands", "predict with a deep recipe", write("run/recipe.json", DEEP), predict, "recipe.json")
add("commands", "predict with a link as mask", lambda w: ((w / "out").mkdir(), (w.parent / "outside/kept").touch(),
    (w / "out/a.png").symlink_to("../../outside/kept")), predict, "ok")
for what, args, word in (("a name up", ["--name=../../outside/ran"], "plain folder name"),
    ("an encoder's name", ["--set", "seed=1e9"], "seed"),
                         ("data that is a FIFO", ["--data=/dev/stdin"], "not a folder"),
                         ("a setting of noise", ["--set", "\x00=1"], "no setting"),
                         ("a huge number", ["--set", "seed=" + "9" * 500], "seed"),
                         ("not a number", ["--set", "lr=nan"], "lr")):
    add("commands", f"run with {what}", lambda w: None, command("run", "--profile=tiny", "--runs=../outside/runs",
    *args), word)


# ---- running them

def good_files(w):
    "A small data folder, a run with a model, and a submission."
    import numpy as np
    import torch
    from dataclasses import asdict
    from PIL import Image
    from aerialseg.core import LANDCOVER12, Run, make_recipe, save_classes, save_json
    from aerialseg.folder import open_folder
    from aerialseg.gallery import pack, save_gallery
    from aerialseg.metrics import counts_of, score_table
    from aerialseg.model import SmallUNet, save_model
    from aerialseg.submission import write_rows
    for sub in ("data/imgs/imgs", "data/masks/masks", "run/figures"): (w / sub).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in "abct":
        noise = Image.fromarray(rng.integers(0, 255, (8, 10, 3), np.uint8)).resize((80, 64), Image.Resampling.BICUBIC)
        noise.save(w / f"data/imgs/imgs/{i}.jpg")
        labels = Image.fromarray(rng.integers(0, 12, (4, 5), np.uint8)).resize((80, 64), Image.Resampling.NEAREST)
        if i != "t": labels.save(w / f"data/masks/masks/{i}.png")
    (w / "data/train.csv").write_text("ImageID\na\nb\nc\n")
    (w / "data/test.csv").write_text("ImageID\nt\n")
    (w / "data/scenes.csv").write_text(SCENES + "".join(f"{i},f{k},0,50.0,-90.0,0.05,summer\n" for k,
    i in enumerate("abct")))
    (w / SAMPLE).write_text("ImageID,EncodedPixels\n" + "".join(f"t_{c},\n" for c in range(12)))
    save_classes(LANDCOVER12, w / "data/classes.csv")
    settings = make_recipe("tiny", arch="small_unet", data=str(w / "data"), device="cpu", workers=0, tta="none")
    save_json(asdict(settings), w / "run/recipe.json")
    torch.manual_seed(0)
    save_model(SmallUNet(12), w / "run/model", LANDCOVER12, settings)
    save_json({"temperature": 1.0, "presence": dict.fromkeys(LANDCOVER12.names, 0.01)}, w / POST)
    counts = rng.integers(1, 99, (3, 12, 3))
    save_json(score_table(counts, LANDCOVER12, np.array(["1", "2", "3"])), w / "run/metrics.json")
    seen = rng.integers(1, 99, (1, 12, 12))
    np.savez(w / "run/counts.npz", ImageID=np.array(["b"]), group=np.array(["2"]), classes=np.array(LANDCOVER12.names), counts=counts_of(seen), confusion=seen)
    save_json({"split": {"kind": "group", "train": 2}}, w / "run/audit.json")
    save_json({"data": {"files": 4}, "machine": {"cpu": "x"}, "packages": {}, "code": {}, "seconds": {}},
    w / "run/manifest.json")
    (w / "run/history.csv").write_text("epoch,miou\n1,0.1\n2,0.2\n3,0.3\n")
    (w / "run/split.csv").write_text("ImageID,split,group,background_ratio\na,train,1,0.1\nb,valid,2,0.1\nc,train,3,0.1\n")
    save_gallery(Run(w / "run", settings), open_folder(w / "data"), ["b"], np.array([.5]), [pack(np.zeros((64, 80), np.uint8))])
    write_rows(w / SUB, open_folder(w / "data"), lambda image: np.repeat([[0], [3]], 32, 0) @ np.ones((1, 80),
    np.uint8))


WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
DEEDS: list[str] = []
HERE: list[Path] = []


def watch(event, args):
    "Python tells this of every file opened and process started: remember what no case may do."
    if not HERE: return
    where = str(HERE[0])
    if event == "open" and isinstance(args[2], int) and args[2] & WRITES and isinstance(args[0], (str, bytes)):
        path = os.path.abspath(os.fsdecode(args[0]))
        if not path.startswith((where + "/", "/dev/null")): DEEDS.append(f"writes {path}")
    elif event == "ctypes.dlopen" and args[0] is None: pass      # this process itself: nothing is loaded
    elif event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "socket.connect",
    "socket.getaddrinfo", "ctypes.dlopen"):
        DEEDS.append(f"{event} {args}"[:200])
    elif event in ("os.remove", "os.rename", "os.rmdir", "os.mkdir") and isinstance(args[0], (str, bytes)):
        path = os.path.abspath(os.fsdecode(args[0]))
        if not path.startswith(where): DEEDS.append(f"{event} {path}")


class TooLate(BaseException):
    "No reader may catch it, so it is no Exception."


def late(*_): raise TooLate(f"it takes more than {SECONDS} s")


def run_case(case, w):
    "What is said (a list of sentences), and what is wrong with that."
    from aerialseg.core import AerialsegError
    wrong, words = [], []
    case.harm(w)
    DEEDS.clear()
    HERE[:] = [w]
    signal.alarm(SECONDS)
    try: words = case.drive(w) or "ok"
    except AerialsegError as e: words = str(e)
    except BaseException as e: wrong.append(f"{type(e).__name__}: {e}"[:300] + " … " + traceback.format_exc()[-600:])
    finally:
        signal.alarm(0)
        HERE.clear()
    words = words if isinstance(words, list) else [words]
    sentences = [s for s in words if not s.startswith("ok")]
    wrong += [f"not one short sentence: {s[:300]!r}" for s in sentences if not s.isprintable() or len(s) > 700]
    if case.want == "ok" and sentences: wrong.append(f"should work, says {sentences}"[:600])
    if case.want not in ("", "ok") and not any(case.want in s for s in words):
        wrong.append(f"should say {case.want!r}, says {words}"[:600])
    return words, wrong + DEEDS


def run_family(name, base, out, cases):
    "Cases of one family, in this process; a line of JSON each."
    shutil.rmtree(base / f"case-{name}", ignore_errors=True)
    signal.signal(signal.SIGALRM, late)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))      # a runaway case ends in MemoryError
    sys.addaudithook(watch)
    os.chdir(base / "cwd")
    for what in cases:
        case, w = FAMILIES[name][what], base / f"case-{name}"
        shutil.copytree(base / "good", w)
        Path("/proc/self/clear_refs").write_text("5")                 # the highest memory since now
        start, before = time.perf_counter(), sorted(map(str, (base / "outside").rglob("*")))
        words, wrong = run_case(case, w)
        memory = 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
        if memory > MEMORY: wrong.append(f"{memory / 2**30:.1f} GiB of memory")
        new = [p for p in (base / "outside").rglob("*") if str(p) not in before]
        ours = ("secret.jpg", "kept", "moved")                        # what the harms put there
        wrong += [f"left {p}" for p in new if p.relative_to(base / "outside").parts[0] not in ours]
        wrong += [f"left {p} in the working folder" for p in os.listdir(".")]
        shutil.rmtree(w)
        result = {"family": name, "case": what, "said": words[:3], "wrong": wrong,
        "seconds": round(time.perf_counter() - start, 2), "mb": memory >> 20}
        out.write(json.dumps(result) + "\n")
        out.flush()


def main(base, only=()):
    "Import once, then a child for each family."
    sys.dont_write_bytecode = True
    os.environ |= {"HF_HUB_OFFLINE": "1", "HOME": str(base / "home"), "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1",
    "TQDM_DISABLE": "1"}
    import torch
    torch.set_num_threads(1)
    for name in ("cli", "compare_report", "evaluation", "loading", "report", "runner", "submission", "training"):
        importlib.import_module(f"aerialseg.{name}")
    for sub in ("cwd", "outside", "good"): (base / sub).mkdir(parents=True)
    good_files(base / "good")
    for name in only or FAMILIES:
        path = base / f"{name}.jsonl"
        path.touch()
        while (done := len(path.read_text().splitlines())) < len(FAMILIES[name]):
            child = os.fork()
            if child == 0:
                try:
                    with open(path, "a") as out: run_family(name, base, out, list(FAMILIES[name])[done:])
                except BaseException: traceback.print_exc()
                finally: os._exit(0)
            wait(child, path, name, list(FAMILIES[name]))


def wait(child, path, name, cases):
    "Until the child ends; a child that hangs or dies loses the case it is in."
    size, since = -1, time.monotonic()
    while not (ended := os.waitpid(child, os.WNOHANG)[0]) and time.monotonic() - since < 2 * SECONDS:
        if path.stat().st_size != size: size, since = path.stat().st_size, time.monotonic()
        time.sleep(0.05)
    if not ended:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    done = len(path.read_text().splitlines())
    if done == len(cases): return
    result = {"family": name, "case": cases[done], "said": [], "wrong": ["it dies" if ended else "it hangs"],
    "seconds": 2 * SECONDS, "mb": 0}
    with open(path, "a") as out: out.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    where = Path(sys.argv[1]).resolve()
    main(where, sys.argv[2:])
    results = [json.loads(line) for f in sorted(where.glob("*.jsonl")) for line in f.read_text().splitlines()]
    for r in results:
        if r["wrong"]: print(f"{r['family']:12s} {r['case']}: {' · '.join(r['wrong'])}")
    print(len(results), "cases,", sum(bool(r["wrong"]) for r in results), "wrong,",
    round(sum(r["seconds"] for r in results), 1), "s, largest",
          max(r["mb"] for r in results), "MB")
