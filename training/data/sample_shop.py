"""What the made-up shop sells and how its customers talk: the words of `sample.py`, nothing that computes.

12 kinds of 5 series of 4 products make 240 items. Kinds stand in a ring, so that neighbours attract the same people.
Phrases are noun phrases for object position and sentences are in the past tense: both spare agreement in number.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Series:
    """A base product and its follow-ups."""

    name: str
    theme: str
    """Completes «... about»."""
    detail: str
    """What buyers notice first."""


@dataclass(frozen=True)
class Kind:
    """A shelf of the shop."""

    noun: str
    """With its article."""
    products: tuple[str, str, str, str]
    """Titles, from the base product on."""
    spoken: tuple[str, str, str, str]
    """How a review calls the four products."""
    verb: str
    """What one did with it, past tense, object «it»."""
    delights: tuple[str, ...]
    """Keys of DELIGHTS that the kind tends to have."""
    series: tuple[Series, ...]
    shelf: tuple[str, str]
    """Its place in the catalogue, general to special, below «Toys & Games»."""
    price: float
    """Of the base product."""


@dataclass(frozen=True)
class Delight:
    """A hidden trait of items and taste of users."""

    seen: tuple[str, str, str]
    """How a review names it in an item."""
    sought: tuple[str, str]
    """How a user names the taste; completes «I look for» and «I enjoy»."""
    maker: str
    """The brand that makes series of which this is the first delight."""


DELIGHTS: dict[str, Delight] = {
    "quick": Delight(
        ("the short rules", "the quick start", "the simple instructions"),
        ("things that are ready in five minutes", "an easy start"),
        "Snapstart Games",
    ),
    "deep": Delight(
        ("the many ways to win", "the depth behind the simple look", "the new ideas in every session"),
        ("something that stays interesting for months", "depth"),
        "Deepwell Studio",
    ),
    "sturdy": Delight(
        ("the sturdy make", "the lasting quality", "the solid build"),
        ("toys that survive rough hands", "solid quality"),
        "Oakgate Toys",
    ),
    "pretty": Delight(
        ("the lovely artwork", "the warm colours", "the beautiful box"),
        ("pretty things for the shelf", "beautiful artwork"),
        "Paper Peony",
    ),
    "funny": Delight(
        ("the silly humour", "the surprising moments", "the loud laughter"),
        ("anything that makes the whole table laugh", "silly humour"),
        "Giggle Barn",
    ),
    "calm": Delight(
        ("the calm pace", "the quiet mood", "the relaxed flow"),
        ("quiet evenings without a screen", "a calm hobby"),
        "Slow Lamp",
    ),
    "clever": Delight(
        ("the clever twists", "the tricky choices", "the smart puzzles"),
        ("a challenge for the mind", "tricky choices"),
        "Brightfox",
    ),
    "together": Delight(
        ("the teamwork", "the shared decisions", "the feeling of winning together"),
        ("things we can do together", "teamwork"),
        "Campfire Circle",
    ),
    "travel": Delight(
        ("the small box", "the handy travel size", "the light bag for all parts"),
        ("things that fit into a suitcase", "small boxes for the road"),
        "Suitcase & Co",
    ),
    "value": Delight(
        ("the full box for a fair price", "the amount of content", "the many extras"),
        ("a lot of content for the price", "good value"),
        "Big Box Factory",
    ),
    "wood": Delight(
        ("the smooth wooden parts", "the natural wood", "the carved wooden figures"),
        ("wood instead of plastic", "wooden toys"),
        "Birch Brothers",
    ),
    "learning": Delight(
        ("the facts we learned along the way", "the clear explanations", "the curious questions it raised"),
        ("toys that teach something", "learning by doing"),
        "Curious Owl",
    ),
}

COMPANIONS = (
    ("my daughter", "My daughter"),
    ("my son", "My son"),
    ("the twins", "The twins"),
    ("my husband", "My husband"),
    ("my wife", "My wife"),
    ("our friends", "Our friends"),
    ("my grandchildren", "My grandchildren"),
    ("my sister", "My sister"),
    ("my students", "My students"),
    ("my neighbours", "My neighbours"),
)
OCCASIONS = (
    "on rainy Sundays",
    "on game night",
    "after dinner",
    "during the holidays",
    "on long train rides",
    "at family parties",
    "on quiet evenings",
    "after school",
)

_EXPANSIONS = ("{n}", "{n}: New Frontiers Expansion", "{n}: Rivals Expansion", "{n}: Deluxe Piece Set")
_EXPANSIONS_SPOKEN = (
    "{n}",
    "the New Frontiers expansion of {n}",
    "the Rivals expansion of {n}",
    "the deluxe set of {n}",
)

KINDS: tuple[Kind, ...] = (
    Kind(
        "a strategy board game",
        _EXPANSIONS,
        _EXPANSIONS_SPOKEN,
        "played",
        ("deep", "clever", "wood"),
        (
            Series("Harbour Lights", "trading ships on a foggy coast", "the wooden ships"),
            Series("Terraces of Luma", "farming on steep mountains", "the stacked terrace tiles"),
            Series("Iron Meridian", "building railways across a continent", "the tiny locomotives"),
            Series("The Amber Road", "merchants on an ancient trade route", "the amber coins"),
            Series("Clockwork Senate", "politics in a city of machines", "the turning gear board"),
        ),
        ("Board Games", "Strategy Games"),
        41.9,
    ),
    Kind(
        "a cooperative adventure game",
        ("{n}", "{n}: Chapter Two", "{n}: Chapter Three", "{n}: Heroes Pack"),
        ("{n}", "the second chapter of {n}", "the third chapter of {n}", "the heroes pack for {n}"),
        "played",
        ("together", "deep", "pretty"),
        (
            Series("Lanterns Below", "explorers in a flooded cave", "the glowing lantern tokens"),
            Series("Stormwatch Keep", "defending a castle in a storm", "the painted heroes"),
            Series("The Last Apiary", "saving the bees of a valley", "the honeycomb map"),
            Series("Signal from Orion", "a crew lost in deep space", "the coded star charts"),
            Series("Whispering Pines", "a mystery in a northern forest", "the secret letters"),
        ),
        ("Board Games", "Cooperative Games"),
        45.9,
    ),
    Kind(
        "a mystery puzzle game",
        ("{n}: Case 1", "{n}: Case 2", "{n}: Case 3", "{n}: Evidence Box"),
        ("the first case of {n}", "the second case of {n}", "the third case of {n}", "the evidence box of {n}"),
        "solved",
        ("clever", "together", "calm"),
        (
            Series("Baker Lane Files", "a detective in old London", "the forged documents"),
            Series("Museum at Midnight", "a theft in a museum", "the museum floor plan"),
            Series("Locked Lighthouse", "an escape from a lighthouse", "the lock with real dials"),
            Series("Orchid Hotel", "strange guests in a grand hotel", "the room keys"),
            Series("The Paper Pharaoh", "riddles in an Egyptian tomb", "the folded pyramid"),
        ),
        ("Puzzles", "Mystery Puzzles"),
        23.9,
    ),
    Kind(
        "a jigsaw puzzle",
        ("{n} 500 Piece Puzzle", "{n} 1000 Piece Puzzle", "{n} 2000 Piece Puzzle", "{n} Puzzle Mat"),
        ("the small {n} puzzle", "the {n} puzzle", "the big {n} puzzle", "the {n} puzzle mat"),
        "finished",
        ("calm", "pretty", "sturdy"),
        (
            Series("Alpine Morning", "a lake in the mountains", "the reflections in the water"),
            Series("Bookshop Cats", "cats asleep among old books", "the cats hidden on the shelves"),
            Series("Coral Garden", "life on a coral reef", "the bright fish"),
            Series("Night Market", "an evening market full of lamps", "the rows of paper lamps"),
            Series("Vintage Balloons", "balloons above a valley", "the striped balloons"),
        ),
        ("Puzzles", "Jigsaw Puzzles"),
        13.9,
    ),
    Kind(
        "a craft kit",
        ("{n} Starter Kit", "{n} Pattern Pack", "{n} Seasonal Kit", "{n} Refill Box"),
        ("the {n} starter kit", "the {n} pattern pack", "the seasonal {n} kit", "the {n} refill box"),
        "tried",
        ("calm", "pretty", "learning"),
        (
            Series("Little Loom", "weaving small rugs", "the smooth loom"),
            Series("Bead Meadow", "beads in the shape of flowers", "the glass beads"),
            Series("Paper Zoo", "folding animals from paper", "the patterned sheets"),
            Series("Candle Corner", "pouring scented candles", "the soft scents"),
            Series("Stitch and Smile", "sewing felt friends", "the felt foxes"),
        ),
        ("Arts & Crafts", "Craft Kits"),
        17.9,
    ),
    Kind(
        "a plush toy",
        ("{n} Plush", "{n} Plush Family", "{n} Plush Picnic Set", "{n} Plush Night Light"),
        ("{n}", "the {n} family", "the {n} picnic set", "the {n} night light"),
        "hugged",
        ("sturdy", "pretty", "value"),
        (
            Series("Benny the Badger", "a badger who collects spoons", "the tiny silver spoon"),
            Series("Luna Owl", "an owl who is afraid of the dark", "the soft grey wings"),
            Series("Captain Otter", "an otter with a boat", "the blue sailor hat"),
            Series("Maple Bear", "a bear who bakes", "the checked apron"),
            Series("Pip the Penguin", "a penguin who loves the sun", "the yellow scarf"),
        ),
        ("Soft Toys", "Plush Animals"),
        15.9,
    ),
    Kind(
        "a wooden toy for small children",
        ("{n} Set", "{n} Extra Tracks", "{n} Animal Friends", "{n} Storage Wagon"),
        ("the {n} set", "the extra tracks for {n}", "the animal friends of {n}", "the {n} wagon"),
        "tested",
        ("wood", "sturdy", "quick"),
        (
            Series("Timber Town", "a village with a train", "the red engine"),
            Series("Rainbow Blocks", "stacking arches in all colours", "the painted arches"),
            Series("Farmyard Friends", "a day on the farm", "the carved cows"),
            Series("Marble Hill", "marbles rolling down a tower", "the spinning funnel"),
            Series("Little Harbour", "boats and a crane", "the turning crane"),
        ),
        ("Preschool", "Wooden Toys"),
        33.9,
    ),
    Kind(
        "a building set",
        ("{n} Builder Set", "{n} Motor Pack", "{n} Giant Set", "{n} Spare Bricks"),
        ("the {n} builder set", "the motor pack for {n}", "the giant {n} set", "the spare bricks for {n}"),
        "built",
        ("value", "learning", "sturdy"),
        (
            Series("Rocket Yard", "rockets on a launch pad", "the opening cargo doors"),
            Series("Castle Craft", "a castle with secret doors", "the working drawbridge"),
            Series("City Movers", "trucks and cranes at work", "the lifting crane arm"),
            Series("Robot Works", "robots that walk", "the swinging robot arms"),
            Series("Jungle Explorers", "a camp deep in the jungle", "the rope bridge"),
        ),
        ("Construction", "Building Sets"),
        37.9,
    ),
    Kind(
        "a science kit",
        ("{n} Lab", "{n} Experiment Cards", "{n} Advanced Lab", "{n} Field Kit"),
        ("the {n} lab", "the experiment cards of {n}", "the advanced {n} lab", "the {n} field kit"),
        "explored",
        ("learning", "clever", "value"),
        (
            Series("Crystal Cave", "growing crystals at home", "the purple crystals"),
            Series("Volcano Valley", "volcanoes and rocks", "the bubbling volcano"),
            Series("Star Seeker", "planets and the night sky", "the folding star map"),
            Series("Circuit Club", "lamps, switches and buzzers", "the blinking lights"),
            Series("Garden Detectives", "insects and plants", "the magnifying jar"),
        ),
        ("Learning Toys", "Science Kits"),
        29.9,
    ),
    Kind(
        "a card game",
        ("{n} Card Game", "{n}: Second Deck", "{n}: Night Deck", "{n}: Tournament Box"),
        ("{n}", "the second deck of {n}", "the night deck of {n}", "the tournament box of {n}"),
        "played",
        ("travel", "quick", "clever"),
        (
            Series("Fox and Lantern", "foxes who steal lanterns", "the golden fox cards"),
            Series("Seven Kettles", "a tea house and its guests", "the steaming kettle cards"),
            Series("Sly Sparrows", "sparrows who bluff for crumbs", "the sparrow portraits"),
            Series("Midnight Bakery", "bakers in a hurry", "the cake cards"),
            Series("Pocket Pirates", "pirates and hidden gold", "the treasure cards"),
        ),
        ("Games", "Card Games"),
        11.9,
    ),
    Kind(
        "a party game",
        ("{n} Party Game", "{n}: More Questions", "{n}: Family Edition", "{n}: Buzzer Set"),
        ("{n}", "the extra questions for {n}", "the family edition of {n}", "the buzzer set for {n}"),
        "played",
        ("funny", "quick", "together"),
        (
            Series("Mumble Jumble", "guessing words that nobody can say", "the squeaky timer"),
            Series("Draw Your Uncle", "terrible drawings of relatives", "the wipe clean boards"),
            Series("Who Said Moo", "sounds of the farm", "the cow shaped buzzer"),
            Series("Alibi Alibi", "excuses that get worse and worse", "the odd excuse cards"),
            Series("Hat Trick", "hats and hidden words", "the paper hats"),
        ),
        ("Games", "Party Games"),
        19.9,
    ),
    Kind(
        "a dice game",
        ("{n} Dice Game", "{n}: Extra Dice", "{n}: Solo Sheets", "{n}: Champion Tray"),
        ("{n}", "the extra dice for {n}", "the solo sheets of {n}", "the champion tray of {n}"),
        "played",
        ("travel", "funny", "deep"),
        (
            Series("Dragon Tumble", "dragons who guard their eggs", "the marbled dragon dice"),
            Series("Lucky Llamas", "a llama race in the Andes", "the llama figures"),
            Series("Roll and Row", "rowers on a wild river", "the river sheets"),
            Series("Copper Mine", "miners in search of copper", "the heavy copper dice"),
            Series("Thunder Orchard", "an apple harvest before the rain", "the red apple dice"),
        ),
        ("Games", "Dice Games"),
        14.9,
    ),
)

# {spoken}: the product; {Spoken}: the same at a sentence's start; {seen}/{Seen}: a delight of the item that the user
# likes; {other}: another delight of the item; {sought}: the user's words for it; {seen_elsewhere}: what it lacks.
MATCH = (
    "{Spoken} won me over with {seen} and {detail}.",
    "I look for {sought}, and {spoken} delivered with {seen}.",
    "{Seen} made {spoken} our favourite {occasion}.",
    "I enjoy {sought}, so {seen} in {spoken} made me happy.",
    "What I loved most about {spoken} were {seen} and {detail}.",
    "{Spoken} gave us {seen}, just what I hoped for.",
    "We {verb} it with {companion} {occasion}, and {seen} impressed everybody.",
    "Thanks to {seen}, {spoken} came to the table again and again.",
)
ITEM = (
    "It is {noun} about {theme}, and {detail} stood out.",
    "{Detail} brought the story of {theme} to life.",
    "As {noun} about {theme}, it came with {other}.",
    "Everybody admired {detail} and praised {other}.",
    "The theme of {theme} worked well with {other}.",
)
USER = (
    "{Companion} asked for it again {occasion}.",
    "I bought it for {companion}, who loved {detail}.",
    "We {verb} it {occasion} and forgot the time.",
    "{Companion} and I {verb} it twice in the first week.",
    "Since I enjoy {sought}, I will look for more from this maker.",
)
FOLLOW_UP = (
    "After {base} we wanted more, and {spoken} was worth it.",
    "{Spoken} fitted perfectly with {base}.",
    "We already owned {base}, and this added {other}.",
)
MISMATCH = (
    "I liked {detail}, but I had hoped for {sought}.",
    "{Spoken} came with {other}, but I missed {seen_elsewhere}.",
    "{Detail} looked nice, yet we {verb} it only once.",
)
SUMMARIES = {
    5: ("Wonderful", "Our new favourite", "Just right"),
    4: ("Very good", "Well made", "Recommended"),
    3: ("Good, not great", "Fine"),
    2: ("Not for us", "Had hoped for more"),
}
# What the catalogue says of an item: its series, its kind, and the delights that its buyers look for.
PRODUCT_WORDS = (
    "{Noun} about {theme}.",
    "Goes on from {base}: more about {theme}.",
    "For everybody who has {base}: a further round about {theme}.",
    "Completes {base}, with {detail} in a new size.",
)
"""Of the four products of a series."""
PRICE_STEPS = (1.0, 0.6, 0.7, 0.4)
"""Prices of the four products, as parts of the base product's."""
FAIR_PRICE = 0.75
"""Of a series that is good value."""
FIRST_NAMES = (
    *("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ines", "Jonas", "Kate", "Leo"),
    *("Mia", "Noah", "Olga", "Paul", "Rosa", "Sam", "Tina", "Victor", "Wendy", "Yann", "Zoe"),
)
