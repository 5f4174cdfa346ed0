"""Every setting of RLlib and of CIKD: what is honoured, with its range, and what is refused.

- `honoured`: settings that do what they say, each with the values it takes.
- `refused`: settings that must keep their defaults, each with the reason and the remedy.
- `values`: the kinds of values.
- `networks`, `overrides`, `combinations`: checks of more than one value.
- `arguments`: the methods of a config (`.training(…)`), whose arguments are settings.
- `page`: `docs/SETTINGS.md`, which is made from all of this.

A default is changed in `CIKDConfig.__init__`; a setting is refused, or no longer, by moving its
line from one table to the other.
"""
