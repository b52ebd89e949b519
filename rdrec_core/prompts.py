"""What the model reads: the words of a source text for each task (paper, section 3 and Table 1).

The bare form (`user_123 item_100 ...`) is used for validation and serving; training draws one of the templates at
random. A template is a sequence of plain words and the two slots USER and ITEMS. Knows words, not tokens.
"""

from __future__ import annotations

from rdrec_core.types import Task

USER = "{user}"
ITEMS = "{items}"
UNKNOWN_USER = 0
"""The user number for somebody whom the model never saw; known users have user_index + 1."""
MAX_HISTORY = 20
"""Items of the history that the sequential task reads, the latest ones (paper, section 4.1)."""

Template = tuple[str, ...]

_BARE: dict[Task, Template] = {
    Task.EXPLANATION: (USER, ITEMS),
    Task.SEQUENTIAL: (USER, ITEMS),
    Task.TOPN: (USER, ITEMS),
    Task.USER_PREFERENCE: (USER,),
    Task.ITEM_ATTRIBUTES: (ITEMS,),
}

_DISCRETE: dict[Task, tuple[str, ...]] = {
    Task.EXPLANATION: (
        "Explain to {user} why {items} is a good choice",
        "Write a sentence by {user} about {items}",
        "What would {user} say about {items} ?",
    ),
    Task.SEQUENTIAL: (
        "{user} bought {items} in this order . What comes next ?",
        "Purchase history of {user} : {items} . Predict the next item",
        "After {items} , which item will {user} choose ?",
    ),
    Task.TOPN: (
        "Choose the best item for {user} from {items}",
        "Which of {items} would {user} like most ?",
        "Candidates for {user} : {items} . Pick one",
    ),
    Task.USER_PREFERENCE: ("Describe the taste of {user}", "What does {user} prefer ?"),
    Task.ITEM_ATTRIBUTES: ("Describe {items}", "What are the attributes of {items} ?"),
}


def bare_template(task: Task) -> Template:
    """The form for validation and serving."""
    return _BARE[task]


def training_templates(task: Task) -> tuple[Template, ...]:
    """All forms that training draws from; the bare one is the first."""
    return (_BARE[task], *(tuple(text.split(" ")) for text in _DISCRETE[task]))


def user_number(user_index: int | None) -> int:
    """The number in `user_123`."""
    return UNKNOWN_USER if user_index is None else user_index + 1
