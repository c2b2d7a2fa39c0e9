"""The book's pages, before Sphinx reads them."""

from lora_np.classroom import book


def test_folders_programs_and_anchors(tmp_path):
    text = "[a](adapters/) [b](../README.md#x) [c](micro.py) [d](https://x.org/y.py) [e](nowhere/)\n```\nx[0](y)\n```\n"
    expected = (
        "[a](adapters/README.md) [b](../index.md#x) [c](micro.py.md) [d](https://x.org/y.py) e\n```\nx[0](y)\n```\n"
    )
    assert book.with_links("lora_np/README.md", text, tmp_path) == expected
    assert "def linear_backward" in (tmp_path / "lora_np" / "micro.py.md").read_text("utf-8")
