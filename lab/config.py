"JupyterLab for this project; `make lab` reads it."
from pathlib import Path

c = get_config()  # noqa: F821, JupyterLab gives it
here = Path(__file__).resolve().parent
c.ServerApp.root_dir = str(here.parent / "nbs")
c.LabApp.default_url = "/lab/tree/index.ipynb"       # the front page, with links to all notebooks
# nothing is asked of the network, and nobody is asked whether to: overrides.json lies here
c.LabApp.app_settings_dir = str(here)
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
