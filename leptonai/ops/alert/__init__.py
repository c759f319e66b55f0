"""Who is told what, when: states, inhibition, silences, groups, escalation decide; sending is a thin hand."""
