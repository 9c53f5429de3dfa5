"""The words of the sample shop: its catalogue, first and family names, cities, languages, phone ranges.

Only constants belong here; how they are drawn is in the other modules. Phone numbers come from the ranges that the
regulators of the United States (555-01xx), Great Britain and Germany keep for fiction. Brazil, Serbia and Romania keep
none: theirs have three zeros or 9000 after the area or operator code, valid in form and most unlikely to be anybody's.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Category → its products: ``name|price in cents|unit cost in cents``; ``*`` marks what one buys once in years.
CATALOGUE = {
    "bedding": """Cotton pillowcase pair|1690|620
Anti-allergy pillow|2490|980
Mattress protector|2990|1130
Jersey fitted sheet|1990|740
Percale fitted sheet|3490|1350
Down pillow|4990|2210
Bed linen set single|3990|1540
Bed linen set double|5990|2380
Linen bed set|12900|5900
Summer duvet|5490|2260
Winter duvet|8990|3890
Weighted blanket|9990|4420
Mattress topper*|14900|6800
Memory foam mattress*|34900|17100
Slatted bed base*|18900|9700""",
    "camping": """Enamel mug|990|310
Head torch|1990|760
Tent pegs set|890|260
Gas cartridge|690|330
Camping cutlery|1490|520
Water carrier|1790|640
Folding stool|2490|1010
Camping chair|3990|1690
Folding table*|5990|2720
Sleeping mat|4490|1880
Sleeping bag three-season|7990|3510
Gas stove*|4990|2150
Cool box*|6990|3120
Two-person tent*|14900|7100
Family tent*|32900|16400""",
    "kitchen": """Coffee beans 1 kg|1690|890
Espresso beans 500 g|1090|560
Green tea 250 g|990|410
Tea towels set of three|1290|450
Chopping board|2290|860
Storage jars set|2790|1040
Bread knife|3190|1280
Chef's knife*|5990|2510
Knife sharpener|2490|900
Mixing bowl set|3490|1340
Baking tray|1590|560
Cast iron pan*|6990|3080
French press*|3490|1390
Coffee grinder*|5990|2690
Stand mixer*|27900|14900""",
    "garden": """Tomato seeds|290|70
Herb seeds mix|490|120
Potting soil 20 l|790|390
Tomato feed|890|340
Garden gloves|1190|390
Plant pots set of four|1690|610
Hand trowel|1290|440
Pruning shears|2490|960
Watering can|1990|740
Bird feeder|1890|680
Garden hose 20 m*|3490|1480
Raised bed*|8990|4390
Garden bench*|13900|6900
Parasol*|9990|4780
Cordless trimmer*|15900|8500""",
    "kids": """Crayons set|690|220
Jigsaw 100 pieces|1290|430
Picture book farm|1190|520
Soft toy rabbit|1990|690
Wooden blocks|2990|1120
Craft box|2490|860
Board game islands|3490|1390
Kids backpack|3290|1270
Night light|2690|980
Puppet theatre|5990|2510
Balance bike*|7990|3790
Wooden train set*|5490|2240
Play kitchen*|11900|5700
Doll's house*|9990|4640
Kids bed linen|2990|1130""",
    "sports": """Jump rope|990|290
Resistance bands|1490|450
Drinking bottle|1690|560
Sports socks three pairs|1390|480
Yoga block|1190|390
Yoga mat|3490|1310
Running belt|2290|810
Running shirt|2990|1090
Running tights|4490|1760
Foam roller|2490|860
Dumbbell pair 5 kg*|3990|1820
Kettlebell 12 kg*|4490|2140
Badminton set|3990|1610
Table tennis set|2790|1020
Folding exercise bike*|18900|9900""",
    "books": """Pocket crossword book|590|240
Bookmarks set|490|110
Crime novel harbour lights|1190|610
Crime novel cold quay|1190|610
Historical novel salt road|1390|720
Science fiction far orbit|1290|660
Poetry small rivers|1090|540
Travel guide Danube|1990|1010
Travel guide Atlantic coast|1990|1010
Vegetable cookbook|2490|1240
Bread baking cookbook|2690|1350
Garden year handbook|2290|1130
Running handbook|1990|980
Photo book mountains|3990|1980
Atlas of the world|4990|2530""",
    "home textiles": """Dishcloths set|790|240
Hand towel|1190|420
Bath towel|1990|730
Bath mat|1890|660
Cushion cover|1290|430
Cushion filling|990|360
Table runner|1690|570
Table cloth|2990|1080
Napkins set of six|1590|540
Wool throw|5990|2560
Blackout curtain|4490|1780
Linen curtain|5490|2240
Shower curtain|2290|780
Cotton rug*|6990|3150
Wool rug*|15900|7700""",
}

#: What people add when they buy the first: complements, never another of the same.
COMPLEMENTS = {
    "Memory foam mattress": ("Percale fitted sheet", "Mattress protector", "Anti-allergy pillow"),
    "Slatted bed base": ("Memory foam mattress", "Mattress protector"),
    "Mattress topper": ("Jersey fitted sheet", "Mattress protector"),
    "Winter duvet": ("Bed linen set double", "Down pillow"),
    "Summer duvet": ("Bed linen set single", "Cotton pillowcase pair"),
    "Down pillow": ("Cotton pillowcase pair",),
    "Camping chair": ("Folding table", "Enamel mug"),
    "Folding table": ("Camping chair", "Folding stool"),
    "Two-person tent": ("Sleeping mat", "Tent pegs set", "Head torch"),
    "Family tent": ("Sleeping bag three-season", "Camping chair", "Cool box"),
    "Gas stove": ("Gas cartridge", "Camping cutlery"),
    "Sleeping bag three-season": ("Sleeping mat",),
    "French press": ("Coffee beans 1 kg",),
    "Coffee grinder": ("Coffee beans 1 kg", "Espresso beans 500 g"),
    "Chef's knife": ("Chopping board", "Knife sharpener"),
    "Stand mixer": ("Mixing bowl set", "Bread baking cookbook"),
    "Raised bed": ("Potting soil 20 l", "Tomato seeds", "Herb seeds mix"),
    "Tomato seeds": ("Tomato feed", "Potting soil 20 l"),
    "Pruning shears": ("Garden gloves",),
    "Garden bench": ("Cushion filling", "Parasol"),
    "Wooden train set": ("Wooden blocks",),
    "Play kitchen": ("Soft toy rabbit", "Craft box"),
    "Kids backpack": ("Drinking bottle",),
    "Yoga mat": ("Yoga block", "Drinking bottle"),
    "Running tights": ("Running shirt", "Sports socks three pairs"),
    "Dumbbell pair 5 kg": ("Yoga mat", "Resistance bands"),
    "Vegetable cookbook": ("Chopping board",),
    "Cushion cover": ("Cushion filling",),
    "Bath towel": ("Hand towel", "Bath mat"),
    "Table cloth": ("Napkins set of six", "Table runner"),
}

#: Category → demand by calendar month, January first, relative to its own year.
CATEGORY_SEASON = {
    "bedding": (1.3, 1.0, 0.9, 0.9, 0.9, 0.9, 0.8, 0.8, 1.1, 1.2, 1.2, 1.0),
    "camping": (0.4, 0.5, 0.9, 1.4, 1.9, 2.1, 1.8, 1.2, 0.7, 0.4, 0.4, 0.5),
    "kitchen": (1.0, 0.9, 0.9, 0.9, 0.9, 0.8, 0.8, 0.9, 1.0, 1.1, 1.4, 1.5),
    "garden": (0.3, 0.7, 1.8, 2.4, 2.0, 1.4, 1.0, 0.7, 0.7, 0.5, 0.3, 0.3),
    "kids": (0.7, 0.7, 0.8, 0.8, 0.9, 0.9, 0.8, 1.0, 0.9, 1.0, 1.6, 2.1),
    "sports": (1.7, 1.2, 1.1, 1.1, 1.0, 0.9, 0.8, 0.8, 1.0, 0.8, 0.8, 0.8),
    "books": (0.9, 0.8, 0.8, 0.8, 0.8, 1.0, 1.2, 1.0, 0.9, 1.0, 1.3, 1.8),
    "home textiles": (1.1, 0.9, 1.0, 1.0, 1.0, 0.9, 0.8, 0.8, 1.0, 1.1, 1.2, 1.2),
}

#: Part of a local day's shopping that falls in each hour, midnight first.
HOURS = (6, 3, 2, 1, 1, 2, 5, 9, 14, 18, 20, 21, 22, 20, 18, 18, 20, 24, 29, 36, 42, 40, 28, 14)


@dataclass(frozen=True)
class Country:
    """Where customers live: how they are called, how they type their phone, and in which language they read."""

    code: str
    english: str
    share: float
    utc_offset: int
    dial: str
    language: str
    women: tuple[str, ...]
    men: tuple[str, ...]
    families: tuple[str, ...]
    cities: tuple[str, ...]
    phone_prefixes: tuple[str, ...]
    phone_digits: int  # digits after the prefix
    phone_styles: tuple[str, ...]  # str.format over a, b, c: prefix of the area, middle, last four; n: all digits
    phone_split: tuple[int, int]  # where b and c begin


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.replace("_", "\N{NO-BREAK SPACE}").split())


_US_AREAS = _words(
    "201 202 203 205 206 207 208 209 210 212 213 214 215 216 217 218 219 224 225 228 229 231 234 239 240 248 251 "
    "252 253 254 256 260 262 267 269 270 276 281 301 302 303 304 305 307 308 309 310 312 313 314 315 316 317 318 "
    "319 320 321 323 325 330 331 334 336 337 339 347 351 352 360 361 386 401 402 404 405 406 407 408 409 410 412 "
    "413 414 415 417 419 423 424 425 430 432 434 435 440 443 469 470 478 479 480 484 501 502 503 504 505 507 508 "
    "509 510 512 513 515 516 517 518 520 530 540 541 551 559 561 562 563 567 570 571 573 574 575 580 585 586 601 "
    "602 603 605 606 607 608 609 610 612 614 615 616 617 618 619 620 623 626 630 631 636 641 646 650 651 660 661 "
    "662 678 682 701 702 703 704 706 707 708 712 713 714 715 716 717 718 719 720 724 727 731 732 734 740 754 757 "
    "760 763 765 770 772 773 774 775 781 785 786 801 802 803 804 805 806 808 810 812 813 814 815 816 817 818 828 "
    "830 831 832 843 845 847 848 850 856 857 858 859 860 862 863 864 865 870 878 901 903 904 906 907 908 909 910 "
    "912 913 914 915 916 917 918 919 920 925 928 931 936 937 940 941 947 949 951 952 954 956 970 971 972 973 978 "
    "979 980 985 989"
)

COUNTRIES = (
    Country(
        "US",
        "United States",
        0.26,
        -5,
        "1",
        "en",
        _words("Emma Olivia Ava Mia Grace Chloe Nora Hannah Ruth Alice Zoe Leah Julia Ella Claire"),
        _words("Liam Noah Ethan Mason Lucas Henry Owen Jack Levi Isaac Caleb Adam Ryan Cole Wyatt"),
        _words(
            "Smith Johnson Miller Davis Wilson Moore Taylor Clark Lewis Walker Hall Young King Wright "
            "Hill Baker O'Neill"
        ),
        ("New York", "Chicago", "Austin", "Denver", "Portland", "Atlanta", "Boston", "Phoenix"),
        tuple(f"{area}55501" for area in _US_AREAS),
        2,
        ("({a}) {b}-{c}", "{a}-{b}-{c}", "+1 {a} {b} {c}", "{n}", "1{n}", "{a}.{b}.{c}"),
        (3, 6),
    ),
    Country(
        "BR",
        "Brazil",
        0.20,
        -3,
        "55",
        "pt-BR",
        _words(
            "Ana Maria Beatriz Camila Fernanda Júlia Larissa Letícia Luana Mariana Patrícia Renata Sofia Tânia Vitória"
        ),
        _words("João Pedro Lucas Mateus Gabriel Rafael Bruno Thiago André Caio Diego Felipe Gustavo Luís Vinícius"),
        _words(
            "Silva Santos Oliveira Souza Lima Pereira Ferreira Costa Rodrigues Almeida Nascimento "
            "Araújo Ribeiro Gonçalves"
        ),
        ("São Paulo", "Rio de Janeiro", "Curitiba", "Porto Alegre", "Recife", "Salvador", "Belo Horizonte"),
        tuple(f"{area}9000" for area in (11, 21, 31, 41, 51, 61, 71, 81, 85, 91)),
        5,
        ("({a}) {b}-{c}", "+55 {a} {b}-{c}", "{a} {b}{c}", "{n}", "0{a} {b}-{c}"),
        (2, 7),
    ),
    Country(
        "RS",
        "Serbia",
        0.16,
        1,
        "381",
        "sr",
        _words(
            "Jelena Milica Ana Ivana Marija Dragana Sanja Teodora Katarina Nevena Jovana Tijana Snežana Vesna Đurđa"
        ),
        _words("Marko Nikola Stefan Luka Miloš Jovan Aleksandar Dušan Filip Nemanja Vuk Petar Uroš Željko Đorđe"),
        _words(
            "Jović Petrović Nikolić Marković Đorđević Stojanović Ilić Kovačević Pavlović Tomić Simić Božić Lukić Šarić"
        ),
        ("Belgrade", "Novi Sad", "Niš", "Kragujevac", "Subotica", "Čačak"),
        tuple(f"{operator}000" for operator in range(60, 70)),
        4,
        ("0{a}/{b}-{c}", "+381 {a} {b} {c}", "0{n}", "0{a} {b} {c}", "00381{n}"),
        (2, 5),
    ),
    Country(
        "RO",
        "Romania",
        0.13,
        2,
        "40",
        "ro",
        _words(
            "Andreea Elena Ioana Maria Alexandra Cristina Mihaela Raluca Simona Gabriela Daniela Bianca "
            "Roxana Oana Diana"
        ),
        _words("Andrei Alexandru Mihai Ionuț Ștefan Cristian Vlad Radu Bogdan Florin George Adrian Dan Sorin Răzvan"),
        _words("Popescu Ionescu Popa Dumitru Stan Stoica Gheorghe Matei Ciobanu Rusu Munteanu Moldovan Enache Țurcanu"),
        ("Bucharest", "Cluj-Napoca", "Timișoara", "Iași", "Brașov", "Constanța"),
        tuple(
            f"{operator}000" for operator in range(720, 800) if operator not in (781, 782, 789, 794, 795, 796, 797, 798)
        ),
        3,
        ("0{a} {b} {c}", "+40 {a} {b} {c}", "0{n}", "0{a}-{b}-{c}", "0040{n}"),
        (3, 6),
    ),
    Country(
        "DE",
        "Germany",
        0.15,
        1,
        "49",
        "de",
        _words("Anna Lena Marie Sophie Laura Julia Katharina Sabine Petra Claudia Jana Franziska Greta Käthe Jördis"),
        _words("Lukas Leon Paul Jonas Felix Maximilian Tobias Stefan Jürgen Thomas Jan Moritz Götz Karsten Björn"),
        _words(
            "Müller Schmidt Schneider Fischer Weber Meyer Wagner Becker Schulz Hoffmann Koch Bauer "
            "Klein Wolf Schröder Groß"
        ),
        ("Berlin", "Hamburg", "Köln", "München", "Leipzig", "Frankfurt am Main", "Bremen"),
        ("3023125", "6990009", "4066969", "2214710", "8999998"),
        3,
        ("0{a} {b}{c}", "+49 {a} {b}{c}", "0{a}/{b} {c}", "0{n}", "0049 {a} {b}{c}"),
        (2, 5),
    ),
    Country(
        "GB",
        "United Kingdom",
        0.10,
        0,
        "44",
        "en",
        _words("Amelia Isla Emily Freya Poppy Evie Charlotte Lucy Daisy Rosie Megan Holly Imogen Eleanor Niamh"),
        _words("Oliver George Harry Arthur Leo Oscar Charlie Alfie Thomas James Edward Rhys Callum Finlay Angus"),
        _words("Jones Williams Brown Evans Thomas Roberts Wood Hughes Green Harris Cooper Turner Ward Murray Campbell"),
        ("London", "Leeds", "Bristol", "Glasgow", "Cardiff", "Manchester", "Belfast"),
        tuple(f"{area}4960" for area in (113, 114, 116, 117, 118, 121, 131, 141, 151, 161)),
        3,
        ("0{a} {b} {c}", "+44 {a} {b} {c}", "(0{a}) {b}{c}", "0{n}", "0044{n}", "+44 (0){a} {b} {c}"),
        (3, 6),
    ),
)

#: How a shop's forms wrote the genders over the years.
GENDERS = {
    "f": ("f", "F", "female", "Female", "woman"),
    "m": ("m", "M", "male", "Male", "man"),
    "o": ("other", "x", "diverse"),
}

#: Words people agreed to.
WORDINGS = {
    "signup": "Yes, send me the newsletter (sign-up form v3)",
    "double": "Confirmed by the link in the confirmation e-mail (sign-up form v3)",
    "import": "Taken over from the old shop on the opening day",
    "account": "Newsletter switched off in the account settings",
    "unsubscribe": "Unsubscribe link in an e-mail",
    "sms": "Text me about offers (checkout v2)",
}

REASONS = ("did not fit", "damaged in transit", "changed my mind", "arrived late", "not as described")
