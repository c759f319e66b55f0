"""The life of a model as steps that remember: collect, train, evaluate, compress, canary, judge, report."""
