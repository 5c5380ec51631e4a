"""A hook of mkdocs: a page for every layer of the catalogue, from its class alone. They are in the site, not in git.

What a page says is read or measured: equation and paper from ``traits.about``, options from the signature and its
docstring, the size of the state from a small layer that has just read something.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from docstrings import described, escaped, linked, markdown
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from torch.utils._pytree import tree_leaves

from ritornello import layers
from ritornello.layers import Layer

__all__ = ["index", "on_config", "on_files", "on_page_markdown", "page", "pages", "state_numbers", "table"]

WIDTH = 64
TITLE = "Layers"
MARKER = "<!-- the table of layers -->"
ROLES = {"mixer": "Sequence mixers", "feed_forward": "Feed-forwards"}

COSTS = {  # how the state grows: work to read T tokens, what is kept, work for one more token
    "constant": ("O(T)", "constant", "O(1)"),
    "window": ("O(T · window)", "up to the window", "O(window)"),
    "log": ("O(T log T)", "O(log T)", "O(log T)"),
    "linear": ("O(T²)", "O(T)", "O(T)"),
}


# ------------------------------------------------------------------------------------------------- what mkdocs calls


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the entries "Layers" and "Decisions" of the navigation with the pages that there are."""
    numbered = sorted(path.name for path in Path(config.docs_dir, "decisions").glob("[0-9]*.md"))
    filled = {TITLE: list(pages()), "Decisions": ["decisions/README.md", *(f"decisions/{name}" for name in numbered)]}
    for entry in config.nav or []:
        entry.update((title, paths) for title, paths in filled.items() if title in entry)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to the site."""
    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the table of the mixers where a page has the marker."""
    if MARKER not in markdown:
        return markdown
    return markdown.replace(MARKER, table("mixer", f"{'../' * page.file.src_uri.count('/')}layers/"))


# ------------------------------------------------------------------------------------------------------- the pages


def pages() -> dict[str, str]:
    """Path → Markdown, of the table of all layers and of every layer's page."""
    found = {"layers/index.md": index()}
    for role in ROLES:
        found |= {f"layers/{name}.md": page(name, cls) for name, cls in layers.catalogue(role).items()}
    return found


def index() -> str:
    lines = [f"# {TITLE}", "", f"Each is built from its width alone. Sizes of the state: one row, width {WIDTH}.", ""]
    for role, title in ROLES.items():
        if layers.catalogue(role):
            lines += [f"## {title}", "", table(role), ""]
    return "\n".join(lines)


def table(role: str, folder: str = "") -> str:
    """A row for every layer of a role, with links to their pages in `folder`."""
    lines = ["| name | family | state | grows | paper |", "|---|---|---:|---|---|"]
    for name, cls in layers.catalogue(role).items():
        about, growth = cls.traits.about, cls.traits.growth
        cells = (
            f"[`{name}`]({folder}{name}.md)",
            about.family,
            f"{state_numbers(cls):,}",
            growth,
            escaped(linked(about.paper)),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page(name: str, cls: type[Layer]) -> str:
    """One layer: equation, source, how to call it, what it costs, options."""
    traits, about = cls.traits, cls.traits.about
    reading, kept, decoding = COSTS[traits.growth]
    first, second = state_numbers(cls), state_numbers(cls, 32)
    size = f"{first:,} numbers" if first == second else f"{first:,} numbers after 16 tokens, {second:,} after 32"
    methods = "every method" if traits.affine else "step by step, or as one fused op"
    return f"""# {about.title}

```text
{about.equation}
```

{linked(about.paper)}

```python
import torch
from ritornello.layers import {cls.__name__}

layer = {cls.__name__}({WIDTH})
y, state = layer(torch.randn(2, 16, {WIDTH}))
y, state = layer(torch.randn(2, 16, {WIDTH}), state)  # goes on where it was
```

| | |
|---|---|
| name in a pattern | `{name}` |
| family | {about.family} |
| causal | {"yes" if traits.causal else "no"} |
| runs by | {methods} |
| state, one row at width {WIDTH} | {size} |
| state in general | {kept} |
| reading T tokens | {reading} |
| one more token | {decoding} |

## Options

{options(cls)}

## In full

{markdown(cls.__doc__ or "", without=["Args"])}
"""


def options(cls: type[Layer]) -> str:
    """A table of the arguments beside `width`: their defaults, and what the docstring says of them."""
    said = described(inspect.getdoc(cls) or "")
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    found = [p for n, p in inspect.signature(cls).parameters.items() if n != "width" and p.kind not in kinds]
    rows = [f"| `{p.name}` | `{p.default!r}` | {escaped(said.get(p.name, ''))} |" for p in found]
    rows.append("| `direction` | `'forward'` | or `'backward'`, or `'both'` |")
    return "\n".join(["| option | default | |", "|---|---|---|", *rows])


def state_numbers(cls: type[Layer], tokens: int = 16) -> int:
    """How many numbers the state of one row holds after some tokens, counters left out."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # a site that is built twice is the same twice
        layer: Any = cls(WIDTH)
        _, state = layer(torch.randn(1, tokens, WIDTH))
    leaves = tree_leaves(state)
    return sum(leaf.numel() for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.is_floating_point())
