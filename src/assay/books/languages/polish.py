"""[pure] Polish."""

from assay.books.languages.words import Words, words

POLISH = Words(
    code="pl",
    never_last=words("""
        św śś bł ks o oo bp abp kard br s ojc
        dr Dr prof Prof doc mgr inż hab lic mec red dyr
        gen płk ppłk mjr kpt kap por ppor chor sierż kpr rtm adm hetm
        hr ks księż p pp pn Wny Wna Wgo JW JWP JWny JPan JMść Jmć jp jw ul al pl os
        tj tzn tzw t zw np wg por zob cyt vide zw śp Śp
        ur zm
    """),
    rarely_last=words("""
        itd itp etc in r rr w ww tys mln mld zł złp gr godz min sek kop rub
        br bm ub b m cd dn
    """),
    before_numbers=words("nr Nr str Str t rozdz Rozdz art poz ust pkt l § wyd z"),
    openers=words("""
        A Ale Aby Albo Ach Aż Bo Był Była Było Byli Były By Co Czy Czemu Dla Do Dopiero Gdy Gdyby Gdzie
        I Ja Jak Jaki Jakże Jego Jej Jest Jednak Już Każdy Kiedy Kto Która Który Lecz Ma Mam Może My Na
        Nad Nagle Nawet Nic Nie Nikt No O Od On Ona Oni Ono Oto Oto Po Pod Potem Przed Przez Przy Są
        Tak Taki Tam Ten Teraz To Ta Te Tu Tylko Tymczasem U W We Wtedy Wszyscy Wszystko Więc Z Za Ze Zaś
        Że Żeby
    """),
    whole_letters=frozenset("AIOUWZ"),
    function_words=words("""
        i a ale lub albo lecz bo że żeby aby by gdy kiedy jak jako niż czy w we z ze na do od po za przez przy
        przed nad pod o u dla bez się nie tak to ten ta te tego tej tym tych który która które on ona ono
        oni jego jej ich mu go ją im ja ty my wy mnie mi ci cię nas nam was pan pani
        jest są był była było byli być będzie już jeszcze tylko nawet też także tu tam teraz potem więc
        zaś jednak no co kto nic nikt wszystko swój swoje bardzo
    """),
)
