"""The interactive session of `rsearch infer`."""
