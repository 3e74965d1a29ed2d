"""Scripts that build what ships in ``clipvet/pocket/assets``: corpus, backbones, tasks, zoo. One command each."""
