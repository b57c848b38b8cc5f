"""Made-up books as the publisher's site has them."""

SENTENCE = (
    "It rained on the {number}th day, and nobody in the village of {title} thought of leaving the house.\n"
)


def book(number, *, title="The Rain", author="Ann Author", language="English", body=None, closed=True):
    """The bytes of a book with header and footer; `closed=False` lacks its closing line."""
    work = body or "".join(SENTENCE.format(number=n, title=f"{title} {number}") for n in range(40))
    head = (
        f"The Project Gutenberg eBook of {title}\n\n"
        "This ebook is for the use of anyone anywhere in the United States and most other parts of the world.\n\n"
        f"Title: {title}\n\nAuthor: {author}\n\nRelease date: May 1, 2020 [eBook #{number}]\n\n"
        f"Language: {language}\n\n"
        f"*** START OF THE PROJECT GUTENBERG EBOOK {title.upper()} ***\n\n\n"
    )
    foot = f"\n\n*** END OF THE PROJECT GUTENBERG EBOOK {title.upper()} ***\n"
    return (head + work + (foot if closed else "")).encode()
