"""Make the README's animation of the playground: python -m lora_np.pages.film FILE (requires Chromium and Pillow)."""

import io
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from ..formats.atomic import write_atomically
from .assemble import playground

OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1280,778"]
SIZE, COLOURS = (880, 535), 224  # of the picture
STEPS = (0, 1, 2, 3, 4, 6, 8, 10, 12, 15, 18, 21, 25, 30, 35, 40, 45, 50, 60, 70, 80, 90, 100)
STRENGTHS = (0.75, 0.5, 0.25, 0)  # of the adapter, after the last step
LONG, SHORT = 1800, 350  # how long a frame is shown, in ms


def film(out, browser="chromium"):
    """Write a GIF of the playground, which trains for 100 steps and then switches the LoRA adapter off."""
    from PIL import Image

    states = [f"steps={n}" for n in STEPS] + [f"steps={STEPS[-1]}&strength={x}" for x in STRENGTHS]
    pictures = []
    with TemporaryDirectory() as folder:
        page, picture = Path(folder, "page.html"), Path(folder, "picture.png")
        playground(page)
        command = [browser, *OPTIONS, f"--screenshot={picture}", f"--user-data-dir={folder}/user"]
        for state in states:
            subprocess.run([*command, "--virtual-time-budget=60000", f"{page.as_uri()}#{state}"], check=True)
            pictures.append(Image.open(picture).convert("RGB").resize(SIZE, Image.Resampling.LANCZOS))
    palette = pictures[len(STEPS) // 2].quantize(COLOURS, dither=Image.Dither.NONE)
    first, *others = (each.quantize(palette=palette, dither=Image.Dither.NONE) for each in pictures)
    times = [LONG if state in (states[0], f"steps={STEPS[-1]}", states[-1]) else SHORT for state in states]
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others, duration=times, loop=0, optimize=True)
    write_atomically(out, file.getvalue())


if __name__ == "__main__":
    film(sys.argv[1])
