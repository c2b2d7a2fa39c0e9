"""Write the text of the lessons and exercises, without code and outputs, to a folder for the spelling checker."""

import sys
from pathlib import Path

from lora_np.classroom.notebooks import read_notebook
from lora_np.classroom.release import notebook_of
from lora_np.classroom.sets import read_sets

folder = Path(sys.argv[1])
folder.mkdir()
notebooks = {f"exercises_{name}": notebook_of(of, "student") for name, of in read_sets().items()}
notebooks |= {path.stem: read_notebook(path) for path in Path("notebooks").glob("*.ipynb")}
for name, notebook in notebooks.items():
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    (folder / f"{name}.md").write_text(text, "utf-8")
