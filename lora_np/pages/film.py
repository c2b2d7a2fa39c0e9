"""Make the README's moving picture of the playground: python -m lora_np.pages.film FILE, with Chromium and Pillow."""

import io
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from ..formats.atomic import write_atomically
from .playground import playground

SIZE, WIDTH = (1280, 800), 880  # of the window, in pixels; of the picture
STEPS = (0, 1, 2, 3, 4, 6, 8, 10, 12, 15, 18, 21, 25, 30, 35, 40, 45, 50, 60, 70, 80, 90, 100)
STRENGTHS = (0.75, 0.5, 0.25, 0.0)  # at the last step
COLOURS, LONG, SHORT = 64, 1800, 350  # of the palette; how long the first and last picture are shown, and the others, in ms


def film(out, browser="chromium"):
    """Write a GIF in which the playground trains for 100 steps, and LoRA's adapter is then switched off."""
    from PIL import Image

    states = [f"steps={n}" for n in STEPS] + [f"steps={STEPS[-1]}&strength={x}" for x in STRENGTHS]
    with TemporaryDirectory() as folder:
        page, picture = Path(folder, "page.html"), Path(folder, "picture.png")
        playground(page)
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--screenshot={picture}"]
        command += [f"--window-size={SIZE[0]},{SIZE[1]}", "--virtual-time-budget=60000", f"--user-data-dir={folder}/user"]
        frames = []
        for state in states:
            subprocess.run([*command, f"{page.as_uri()}#{state}"], check=True, capture_output=True)
            frame = Image.open(io.BytesIO(picture.read_bytes())).convert("RGB")
            frame = frame.resize((WIDTH, WIDTH * SIZE[1] // SIZE[0]), Image.Resampling.LANCZOS)
            frames.append(frame)
    palette = frames[-1].quantize(COLOURS, dither=Image.Dither.NONE)
    first, *others = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    times = [LONG if i in (0, len(STEPS) - 1, len(states) - 1) else SHORT for i in range(len(states))]
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others, duration=times, loop=0, optimize=True)
    write_atomically(out, file.getvalue())


if __name__ == "__main__":
    film(sys.argv[1])
