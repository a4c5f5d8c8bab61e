"""How far a long job is: library calls report to one object.

Sentences (a warning, or where frames are kept) go to `logging` instead, to the logger with the module's name.
"""


class Progress:
    """Receives how far a job is. This class ignores it; a subclass can show it.

    One job may consist of several tasks, one after the other, such as loading and training.

    >>> class Counts(attengait.Progress):
    ...     def update(self, task, done, total, *, unit, detail=None):
    ...         print(task, done, "of", total, unit)
    >>> embeddings = attengait.embed(model, store[:3], progress=Counts())
    Embedding 3 of 3 sequences
    """

    def update(self, task: str, done: int, total: int, *, unit: str, detail: object = None) -> None:
        """Called when `done` of `total` units of a task are done.

        Args:
            task: what is going on, such as Preprocessing; another name means that another task has begun.
            done: units done so far, those of earlier runs included.
            total: units to do in all.
            unit: what is counted, in the plural, such as frames.
            detail: more about the state; `str(detail)` is one short line, such as the losses of a training.
        """


SILENT = Progress()
"""For callers who do not want to know."""


def duration(seconds: float) -> str:
    """A time as a person would write it: 42 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
