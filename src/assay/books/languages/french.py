"""[pure] French."""

from assay.books.languages.words import Words, words

FRENCH = Words(
    code="fr",
    never_last=words("""
        M MM Mgr Mgrs Mr Dr Drs Me Mes Pr Ste St SS Cie Gal Col Cap Lt Cdt
        cf env ex
    """),
    rarely_last=words("""
        etc av apr hab id ibid op cit loc al min sec h fr
        janv févr avr juil sept oct nov déc
    """),
    before_numbers=words("no No n° N° nos t T vol Vol p pp P ch chap Ch Chap art Art fig Fig liv Liv l v"),
    openers=words("""
        Le La Les L Un Une Des Il Elle Ils Elles On Nous Vous Je Tu J C Ce Cet Cette Ces Cela Ça Mais Et Ou
        Or Donc Car Ni Si Quand Comme Puis Alors Ainsi Après Avant Dans Sur Sous Avec Sans Pour Par En De
        Du À Au Aux Chez Vers Que Qui Quoi Quel Quelle Où Comment Pourquoi Mon Ma Mes Ton Ta Tes Son Sa
        Ses Notre Nos Votre Vos Leur Leurs Tout Toute Tous Toutes Oui Non Oh Ah Eh Là Ici Voilà Voici
    """),
    whole_letters=frozenset("À"),
    spaced_quotes="»",
    function_words=words("""
        le la les l un une des du de d et ou mais or donc car ni si que qui quoi dont où quand comme
        à au aux en dans sur sous avec sans pour par vers chez il elle ils elles on nous vous je j tu me m te
        se s lui leur son sa ses mon ma mes votre notre ce c cet cette ces cela
        est sont était étaient être a ai avait avaient ont fut fait ne n pas plus point rien jamais tout
        tous bien très encore déjà puis alors là y
    """),
)
