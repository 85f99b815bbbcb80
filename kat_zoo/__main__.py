"""`python -m kat_zoo`: the command `kat-zoo`."""

from .cli.main import main

raise SystemExit(main())
