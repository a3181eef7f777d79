"""In a real kernel: what Jupyter, VS Code and Colab show is what a kernel sends."""

import nbformat
import pytest
from nbclient import NotebookClient


@pytest.fixture(scope="module")
def outputs():
    """Returns the outputs of each cell after it was run."""
    cells = [
        "from autoinit.screen.notebook import Output, in_notebook\nprint(in_notebook())",
        "one = Output()\none.show('<i>first</i>')\none.show('<b>second</b>')",
        "two = Output()\ntwo.show('<i>gone</i>')\ntwo.clear()",
        "from autoinit.screen.columns import width\nprint(width())",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    return [cell.outputs for cell in notebook.cells]


def test_a_kernel_is_a_notebook(outputs):
    assert outputs[0][0].text.strip() == "True"
    assert outputs[3][0].text.strip() == "100"


def test_an_output_is_replaced_and_taken_away(outputs):
    assert [output.data["text/html"] for output in outputs[1]] == ["<b>second</b>"]
    assert [output.data["text/html"] for output in outputs[2]] == [""]


def test_python_alone_is_no_notebook():
    from autoinit.screen.notebook import in_notebook

    assert not in_notebook()
