"""[pure] English."""

from assay.books.languages.words import Words, words

ENGLISH = Words(
    code="en",
    never_last=words("""
        Mr Mrs Ms Mme Mdme Mlle Messrs MM Dr Ste Rev Revd Fr Hon Rt Prof Esqre
        Capt Captn Col Gen Lieut Lt Maj Serg Sergt Sgt Corp Adm Brig Cmdr Gov Pres Sen Rep Supt
        viz cf vs eg ie
    """),
    rarely_last=words("""
        Esq Bart St Mt Ft Jr Sr Jun Sen jun sen Bros Co Ltd Inc Ave Rd Sq
        Jan Feb Mar Apr Aug Sept Sep Oct Nov Dec
        etc c al anon approx dept est inst ult prox ibid id loc cit op seq sic qto
        lb lbs oz ft hr hrs min yd yds
    """),
    before_numbers=words("""
        No Nos no nos Vol Vols vol vols p pp P PP ch chap Ch Chap fig Fig sec Sec
        Art bk Bk ver verse l ll n ed Pt pt para Lect Act Sc sc
    """),
    openers=words("""
        The He She It They We You I But And This That These Those There Then Here When Where While
        What Who Why How Which His Her Its Their Our My Your In On At By From With Without To Of
        If As So For Or Nor Yet No Not Now Yes Oh Ah Well After Before Upon Such Some All One Every
        Had Has Have Was Were Is Are Did Do Does Would Could Should Shall Will May Might Let
    """),
    whole_letters=frozenset("IO"),
    function_words=words("""
        the a an and or but if so for nor yet of to in on at by from with without into upon about over under
        after before between through against as than that this these those which who whom whose what where
        when while how why he she it they we you i me him her them us my your his its their our
        is are was were be been being am have has had do does did will would shall should can could may might
        must not no never very more most much such only even now then there here some any all every one
        too well still quite rather
    """),
)
