"""A run under way, for people: `assay status --watch` and its page. All of it comes from `runs.status`.

lines.py            what a terminal of some width shows (pure)
page.py             the same as an HTML file that needs nothing else
watch.py            look, show, wait
report.html.jinja   the page's template
"""
