"""An HTML page taken apart, for tests of what it shows."""

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """A page as its tags, attributes, text, headings and rows of cells; fails unless tags are closed in order."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.headings, self.cells = [], [], [], []
        self.text = ""
        self._open = []
        self.feed(html)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "tr":
            self.cells.append([])
        if tag in {"td", "th"}:
            self.cells[-1].append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" in self._open:
            return
        self.text += data + "\n"
        if self._open and self._open[-1] in {"h1", "h2", "h3"}:
            self.headings.append(data)
        if self._open and self._open[-1] in {"td", "th"}:
            self.cells[-1][-1] += data
