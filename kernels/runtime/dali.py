"""The reason in an error message of NVIDIA DALI, without the lines that say where in the sources it happened."""


def reason(error: Exception) -> str:
    """Return the part of DALI's message that says what is wrong, in one line."""
    text = str(error)
    for before in ("encountered:", "failed: "):
        text = text.partition(before)[2] or text
    for after in ("C++ context:", "Stacktrace", "Current pipeline object"):
        text = text.partition(after)[0]
    return " ".join(text.split())
