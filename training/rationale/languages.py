"""The languages that a rationale may be asked for and judged in: what tells them apart, and their words for the frame.

A table and a detector (py3langid, kept to the languages of the table). Knows no reviews table, prompt or verdict.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from rdrec_core.errors import InputError
from rdrec_core.words import BLANKLESS

SURE = 0.9
"""A text is called foreign from this probability on; below it stays with the language that is expected of it."""
SURE_WORDS = 3
"""Of fewer words nobody can tell."""
DETECT_CHARS = 400
"""So much of a text tells its language; the detector takes about a microsecond a letter."""
MAIN_SAMPLE = 500


@dataclass(frozen=True)
class Language:
    """One row of the table. `person` and `thing` are alternatives of a regular expression; `frame` holds words that a
    writer of rationales uses whatever the review says."""

    code: str
    name: str
    stemmer: str | None
    """Snowball's name of it; None where words are not parted by blanks or not stemmed: characters are compared."""
    person: str
    thing: str
    frame: str


_ROWS = (
    Language("en", "English", "english",
             "user|buyer|customer|reviewer|purchaser|shopper|consumer|person", "item|product", ""),
    Language("de", "German", "german",
             r"nutzer(?:in)?|benutzer(?:in)?|anwender(?:in)?|käufer(?:in)?|kund(?:e|in|en)|rezensent(?:in)?",
             "artikel|produkt|gegenstand|ware",
             "nutzer artikel produkt käufer kunde möchte mag bevorzugt schätzt wünscht braucht sucht will legt wert "
             "bietet verfügt besitzt gefällt eigenschaft eigenschaften vorliebe zufrieden"),
    Language("fr", "French", "french",
             "utilisateur|utilisatrice|acheteur|acheteuse|client(?:e)?|consommateur", "article|produit|objet",
             "utilisateur article produit acheteur client préfère aime apprécie souhaite veut cherche recherche besoin "
             "offre possède dispose présente caractéristique préférence satisfait"),
    Language("es", "Spanish", "spanish",
             r"usuari[oa]|comprador(?:a)?|client[ea]|consumidor(?:a)?", "artículo|producto|objeto",
             "usuario artículo producto comprador cliente prefiere gusta valora quiere desea busca necesita aprecia "
             "ofrece tiene cuenta característica preferencia satisfecho"),
    Language("it", "Italian", "italian",
             "utente|acquirente|cliente|consumatore", "articolo|prodotto|oggetto",
             "utente articolo prodotto acquirente cliente preferisce ama apprezza vuole desidera cerca bisogno offre "
             "possiede dispone caratteristica preferenza soddisfatto"),
    Language("pt", "Portuguese", "portuguese",
             r"usuári[oa]|utilizador(?:a)?|comprador(?:a)?|client[ea]|consumidor(?:a)?", "item|produto|artigo",
             "usuário utilizador item produto artigo comprador cliente prefere gosta valoriza quer deseja procura "
             "precisa aprecia oferece possui característica preferência satisfeito"),
    Language("nl", "Dutch", "dutch",
             "gebruiker|gebruikster|koper|klant|consument", "artikel|product|item",
             "gebruiker artikel product koper klant houdt wil zoekt nodig waardeert verkiest biedt heeft beschikt "
             "eigenschap voorkeur tevreden"),
    Language("sv", "Swedish", "swedish", "användare|köpare|kund", "artikel|produkt|vara|föremål",
             "användaren artikeln produkten köparen kunden vill gillar uppskattar föredrar behöver söker erbjuder har"),
    Language("da", "Danish", "danish", "bruger|køber|kunde", "artikel|produkt|vare",
             "brugeren artiklen produktet køberen kunden vil kan lide foretrækker sætter pris behøver søger tilbyder"),
    Language("no", "Norwegian", "norwegian", "bruker|kjøper|kunde", "artikkel|produkt|vare",
             "brukeren artikkelen produktet kjøperen kunden vil liker setter pris foretrekker trenger søker tilbyr"),
    Language("fi", "Finnish", "finnish", "käyttäj|ostaj|asiak", "tuot|esine|artikkeli",
             "käyttäjä tuote ostaja asiakas haluaa pitää arvostaa tarvitsee etsii tarjoaa"),
    Language("pl", "Polish", "polish", "użytkowni|kupując|klient|nabywc", "produkt|przedmiot|artykuł",
             "użytkownik produkt przedmiot artykuł kupujący klient chce lubi ceni potrzebuje szuka preferuje oferuje"),
    Language("cs", "Czech", "czech", "uživatel|kupující|zákazní", "produkt|výrobek|položka|předmět",
             "uživatel produkt výrobek položka kupující zákazník chce oceňuje potřebuje hledá preferuje nabízí"),
    Language("hu", "Hungarian", "hungarian", "felhasználó|vásárló|vevő", "termék|cikk|tétel",
             "felhasználó termék vásárló szeretne kedveli értékeli keres kínál rendelkezik"),
    Language("ro", "Romanian", "romanian", "utilizator|cumpărător|client", "articol|produs|obiect",
             "utilizatorul articolul produsul cumpărătorul clientul preferă dorește apreciază caută oferă are"),
    Language("tr", "Turkish", "turkish", "kullanıcı|alıcı|müşteri", "ürün|eşya",
             "kullanıcı ürün alıcı müşteri istiyor tercih ediyor seviyor arıyor ihtiyaç duyuyor sunuyor sahip"),
    Language("id", "Indonesian", "indonesian", "pengguna|pembeli|pelanggan", "barang|produk|item",
             "pengguna barang produk pembeli pelanggan ingin menyukai membutuhkan mencari menawarkan memiliki"),
    Language("vi", "Vietnamese", None, "người dùng|người mua|khách hàng", "sản phẩm|mặt hàng|món hàng",
             "người dùng mua khách hàng sản phẩm mặt hàng thích muốn cần tìm đánh giá cao cung cấp có"),
    Language("ru", "Russian", "russian", "пользовател|покупател|клиент", "товар|продукт|предмет|изделие",
             "пользователь товар продукт покупатель клиент хочет предпочитает ценит любит ищет нуждается предлагает "
             "имеет обладает"),
    Language("uk", "Ukrainian", None, "користувач|покупец|клієнт", "товар|продукт|виріб",
             "користувач товар продукт покупець клієнт хоче любить цінує шукає потребує пропонує має"),
    Language("el", "Greek", "greek", "χρήστη|αγοραστ|πελάτη", "προϊόν|αντικείμενο|είδος",
             "χρήστης προϊόν αγοραστής πελάτης θέλει προτιμά εκτιμά ψάχνει χρειάζεται προσφέρει διαθέτει"),
    Language("ar", "Arabic", "arabic", "المستخدم|المشتري|العميل", "المنتج|السلعة|العنصر",
             "المستخدم المنتج المشتري العميل يفضل يحب يريد يحتاج يبحث يوفر يتميز"),
    Language("he", "Hebrew", None, "המשתמש|הקונה|הלקוח", "המוצר|הפריט",
             "המשתמש המוצר הפריט הקונה הלקוח מעדיף אוהב רוצה צריך מחפש מציע"),
    Language("hi", "Hindi", "hindi", "उपयोगकर्ता|खरीदार|ग्राहक", "उत्पाद|वस्तु|आइटम",
             "उपयोगकर्ता उत्पाद वस्तु आइटम खरीदार ग्राहक पसंद चाहता चाहती जरूरत प्रदान"),
    Language("zh", "Chinese", None, "用户|使用者|买家|買家|顾客|顧客|消费者|消費者|购买者|購買者|客户",
             "商品|产品|產品|物品|该品",
             "用户使用者买家顾客消费者商品产品物品喜欢喜爱偏好想要需要希望重视看重欣赏具有提供拥有特点属性满意这款该"
             "的是一个了在和有能够可以以及并且很也为其与等对它会"),
    Language("ja", "Japanese", None, "ユーザー|利用者|購入者|顧客|消費者", "商品|製品|アイテム|品物",
             "ユーザーは利用者購入者顧客商品製品アイテムを好み求め重視し必要とし望んでいます好んでいます評価しています"
             "特徴があります提供しますですますでしたました。している。しており、という。ことが。ものを。"),
    Language("ko", "Korean", None, "사용자|구매자|고객|소비자", "상품|제품|아이템|물건",
             "사용자는 구매자는 고객은 상품은 제품은 아이템은 선호합니다 좋아합니다 원합니다 필요로 중요하게 "
             "생각합니다 제공합니다 있습니다 특징입니다 입니다 합니다"),
    Language("th", "Thai", None, "ผู้ใช้|ผู้ซื้อ|ลูกค้า|ผู้บริโภค", "สินค้า|ผลิตภัณฑ์|ไอเทม",
             "ผู้ใช้ ผู้ซื้อ ลูกค้า สินค้า ผลิตภัณฑ์ ชอบ ต้องการ ชื่นชอบ มองหา ให้ความสำคัญ มีคุณสมบัติ เป็น ที่ และ มี ของ ใน ได้"),
)  # fmt: skip
LANGUAGES = {language.code: language for language in _ROWS}
ENGLISH = LANGUAGES["en"]

_BLANKLESS_RUN = re.compile(f"[{BLANKLESS}]+")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")


def word_count(text: str) -> int:
    """Words of a text; where a script parts none, every two characters count as one."""
    blankless = sum(-(-len(run) // 2) for run in _BLANKLESS_RUN.findall(text))
    return blankless + len(_WORD.findall(_BLANKLESS_RUN.sub(" ", text)))


def language_named(name: str) -> Language:
    """By code or English name, in any case. Raises InputError naming what is known."""
    wanted = name.strip().casefold()
    for language in _ROWS:
        if wanted in (language.code, language.name.casefold()):
            return language
    known = ", ".join(f"{language.code} ({language.name})" for language in _ROWS)
    raise InputError(f"--language {name!r} is not known; use auto or one of {known}", field="--language")


@cache
def _identifier() -> object:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(list(LANGUAGES))
    return identifier


def detect(text: str) -> Language | None:
    """The language that the text is surely in; None where it is too short, mixed or of none of the table's."""
    if word_count(text) < SURE_WORDS:
        return None
    code, probability = _identifier().classify(text[:DETECT_CHARS])  # type: ignore[attr-defined]
    return LANGUAGES[code] if probability >= SURE else None


@dataclass(frozen=True)
class Languages:
    """Which language each review is asked about in."""

    main: Language = ENGLISH
    """Of reviews that are too short to tell."""
    by_review: bool = False
    """Whether a review whose language is plain is asked about in that one."""

    def of(self, review: str) -> Language:
        """The language of this review's rationale."""
        return (detect(review) or self.main) if self.by_review else self.main


def languages_for(option: str, reviews: Iterable[str]) -> Languages:
    """From `--language`: `auto` looks at the first reviews for the main language, a name fixes it.

    Raises InputError where the name is not known.
    """
    if option.strip().casefold() != "auto":
        return Languages(language_named(option))
    votes: Counter[str] = Counter()
    for _, text in zip(range(MAIN_SAMPLE), reviews, strict=False):
        if found := detect(text):
            votes[found.code] += 1
    return Languages(LANGUAGES[votes.most_common(1)[0][0]] if votes else ENGLISH, by_review=True)
