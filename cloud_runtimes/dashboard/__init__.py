"""A receiver of OTLP for development: takes traces, logs and metrics over HTTP, keeps them in SQLite, shows them on a page.

It is what ``cloud-runtimes telemetry serve`` runs (`server`). `app` answers HTTP, `otlp_json` and `cloud_runtimes.telemetry.json_records` read requests, `rows` makes rows of them, `store` keeps them within limits, `queries` reads them for the page, whose files are in ``page/``.
"""
