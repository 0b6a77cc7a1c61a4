"""Calls to outside services: event loop, cache, budget, retries and the clients that use them.

`runtime` opens all of them for a run; `client` is what search, judge and policy call.
"""
