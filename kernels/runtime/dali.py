"""What NVIDIA DALI says when something fails, without where in its sources and ours it says so."""


def reason(error: Exception) -> str:
    """Return the part of DALI's message that says what is wrong, in one line."""
    text = str(error)
    for before in ("encountered:", "failed: "):
        text = text.partition(before)[2] or text
    for after in ("C++ context:", "Stacktrace", "Current pipeline object"):
        text = text.partition(after)[0]
    return " ".join(text.split())
