"""[pure] German."""

from assay.books.languages.words import Words, words

GERMAN = Words(
    code="de",
    never_last=words("""
        Hr Hrn Fr Frl Hrr Dr Prof Dipl Ing Mag Lic Pf St Sr Se Ew Exz Hochw Wohlgeb
        Hptm Lt Oblt Maj Gen Kapt
        bzw z d u s v sog vgl gen geb gest ca evtl ggf inkl exkl mhd lat engl franz dt
        allg bes insb insbes
    """),
    rarely_last=words("""
        usw usf etc dgl desgl ff f ä b h i m w Chr
        Jan Feb Mär Apr Jun Jul Aug Sept Sep Okt Nov Dez
        Jh Jhd Jahrh Mio Mrd Mk Pf Fl Rthlr Tlr Thlr Gr Std Min Sek Str str Co Ges
    """),
    before_numbers=words("Nr No Bd Bde S Kap Abs Art Abt Anm Aufl Fig Taf Abb Nro Th Tl V v"),
    openers=words("""
        Der Die Das Den Dem Des Ein Eine Einen Einem Einer Er Sie Es Wir Ihr Ich Du Man Und Aber Oder
        Doch Denn Da Dann Dort Hier Wenn Wie Wo Was Wer Warum Als Auf An Aus Bei Mit Nach Von Vor Zu
        Über Unter Durch Für Gegen Ohne Um In Im Am Zum Zur Vom Beim Nun So Ja Nein Nicht Noch Nur
        Sein Seine Seinen Ihre Ihren Mein Meine Dein Unser Euer Dieser Diese Dieses Jener Jene Jenes
        Alle Alles Kein Keine Jetzt Auch Schon Ob Daß Dass Weil Während Obwohl Indessen Endlich
    """),
    whole_letters=frozenset(),
    has_ordinals=True,
    determiners=words("""
        der die das den dem des ein eine einen einem einer eines kein keine keinen keinem keiner
        mein meine meinen meinem meiner dein deine sein seine seinen seinem seiner ihr ihre ihren ihrem ihrer
        unser unsere euer eure dieser diese dieses diesem diesen jener jene jenes jeder jede jedes
        im am zum zur vom beim ins ans aller alle viele wenige einige manche solche welche
    """),
    function_words=words("""
        der die das den dem des ein eine einen einem einer eines und oder aber denn doch sondern wenn als wie
        dass daß weil ob in im an am auf aus bei mit nach von vom vor zu zum zur über unter durch für gegen
        ohne um er sie es wir ihr ich du man mich mir ihn ihm uns sich mein sein ihre seine
        ist sind war waren hat hatte haben wird wurde werden kann nicht kein nur auch noch schon so nun da
        hier dort sehr mehr was wer
    """),
)
