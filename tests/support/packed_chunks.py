"""Contents of chunks that LZ4 packs in different ways."""

import numpy as np


def _contents() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, 20_000, np.uint8).tobytes()
    # As flow images are: mostly white, with smooth colours and some noise.
    picture = np.full((8, 32, 32, 3), 255, np.uint8)
    picture[:, 8:24, 8:24] -= (np.arange(16)[:, None] * [1, 5, 9]).astype(np.uint8) + rng.integers(
        0, 3, (8, 16, 16, 3), np.uint8
    )
    contents = {"flow": picture.tobytes(), "noise": noise, "zeros": bytes(20_000)}
    # Matches nearer than they are long, and runs of literals that end in any way.
    contents |= {f"period {n}": (noise[:n] * 20_000)[:20_011] for n in (1, 2, 3, 5, 7, 15, 16, 17, 33)}
    contents["both"] = b"".join(noise[i : i + i % 90] + noise[3 : 3 + i % 7] * (i % 23) for i in range(400))
    return contents


CONTENTS = _contents()
