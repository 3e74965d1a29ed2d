"""The classes of the ten pocket tasks, and what the probe pool may be made of.

A coarse class is one or more Unicode subgroups, less the names that do not belong to the word that we call the class. A fine
class is one name; a profession is one word with its three names (person, man, woman).
"""

from __future__ import annotations

__all__ = ["COARSE", "FINE", "LEFT_OUT", "POOL_GROUPS", "POOL_LEFT_OUT", "PROFESSIONS"]


def names(text: str) -> tuple[str, ...]:
    """Split a list that is written as one text."""
    return tuple(text.split(","))


HANDS = ("hand-fingers-open", "hand-fingers-partial", "hand-single-finger", "hand-fingers-closed", "hands")

COARSE: dict[str, dict[str, tuple[str, ...]]] = {  # task -> class -> Unicode subgroups
    "nature": {
        "bird": ("animal-bird",),
        "fruit": ("food-fruit",),
        "mammal": ("animal-mammal",),
        "weather": ("sky-weather",),
        "flower": ("plant-flower",),
        "insect": ("animal-bug",),
        "sea animal": ("animal-marine",),
        "vegetable": ("food-vegetable",),
        "landscape": ("place-geographic",),
        "plant": ("plant-other",),
    },
    "objects": {
        "tool": ("tool",),
        "clothing": ("clothing",),
        "musical instrument": ("musical-instrument",),
        "book": ("book-paper",),
        "clock": ("time",),
        "sports equipment": ("sport",),
        "computer": ("computer", "phone"),
        "mail": ("mail",),
        "sound equipment": ("sound", "music"),
        "heart": ("heart",),
    },
    "symbols": {
        "geometric shape": ("geometric",),
        "arrow": ("arrow",),
        "zodiac sign": ("zodiac",),
        "number key": ("keycap",),
        "warning sign": ("warning",),
        "media button": ("av-symbol",),
        "religious symbol": ("religion",),
        "word button": ("alphanum",),
        "public sign": ("transport-sign",),
        "punctuation mark": ("punctuation", "math"),
    },
    "people": {
        "smiling face": ("face-smiling", "face-affection"),
        "worker": ("person-role",),
        "hand": HANDS,
        "cat face": ("cat-face", "monkey-face"),
        "athlete": ("person-sport",),
        "sick face": ("face-unwell",),
        "sad face": ("face-concerned",),
        "body part": ("body-parts",),
        "family": ("family",),
        "fantasy character": ("person-fantasy",),
    },
    "daily-life": {
        "prepared food": ("food-prepared", "food-asian"),
        "building": ("place-building", "place-religious"),
        "drink": ("drink",),
        "road vehicle": ("transport-ground",),
        "household item": ("household",),
        "sweet": ("food-sweet",),
        "aircraft": ("transport-air",),
        "office supply": ("office",),
        "celebration": ("event",),
        "game": ("game",),
    },
}

LEFT_OUT = frozenset(  # names that stand in a subgroup but not under the word that we call the class
    names(
        "feather,wing,paw prints,pig nose,microbe,spider web,coral,spiral shell,rosette,empty nest,nest with eggs,thermometer,fire,"
        "droplet,water wave,umbrella,closed umbrella,umbrella on ground,umbrella with rain drops,"
        "gem stone,ring,lipstick,prayer beads,hair pick,bomb,magnet,shield,chains,broken chain,link,hourglass done,"
        "hourglass not done,label,bookmark,love letter,broken heart,ballot box with ballot,battery,low battery,electric plug,"
        "running shirt,martial arts uniform,diving mask,fishing pole,"
        "brick,rock,wood,stadium,seat,parachute,construction,oil drum,railway track,stop sign,fuel pump,wheel,police car light,"
        "bus stop,motorway,horizontal traffic light,vertical traffic light,roller skate,skateboard,pouring liquid,ice,salt,"
        "cooking,egg,couch and lamp,wastebasket,reminder ribbon,sparkles,video game,heart suit,kite,water pistol,mage,"
        "breast feeding,elevator,pregnant man,pregnant person,pregnant woman,baby angel,tumbler glass,moon viewing ceremony"
    )
)

FINE: dict[str, tuple[str, ...]] = {
    "animals": names(
        "tiger,elephant,koala,camel,pig,owl,panda,turtle,fox,rabbit,gorilla,horse,crab,mouse,penguin,bat,snake,deer,octopus,lion,"
        "rooster,rhinoceros,dog,whale,cow,monkey,crocodile,goat,eagle,squid"
    ),
    "fruits-and-vegetables": names(
        "banana,carrot,cherries,eggplant,grapes,pineapple,ear of corn,strawberry,hot pepper,watermelon,avocado,lemon,mushroom,"
        "potato,kiwi fruit,cucumber,peach,pear,tomato,peanuts,green apple,chestnut,melon,red apple,tangerine"
    ),
    "dishes": names(
        "pizza,sushi,hamburger,birthday cake,hot dog,ice cream,taco,beer mug,croissant,doughnut,french fries,bento box,pancakes,"
        "cookie,burrito,wine glass,popcorn,lollipop,bread,tropical drink,cheese wedge,dango,bacon,hot beverage,steaming bowl,"
        "chocolate bar,spaghetti,baby bottle,fried shrimp,rice ball,poultry leg,cocktail glass"
    ),
    "vehicles": names(
        "bicycle,airplane,bus,sailboat,tractor,helicopter,fire engine,rocket,taxi,kick scooter,ambulance,canoe,"
        "motorcycle,metro,racing car,ship,delivery truck,monorail,police car,speedboat,motor scooter,aerial tramway,"
        "locomotive,articulated lorry,automobile,mountain railway"
    ),
}

PROFESSIONS = names(
    "artist,cook,firefighter,judge,pilot,student,farmer,astronaut,mechanic,police officer,teacher,construction worker,scientist,"
    "guard,health worker,detective,singer,factory worker,technologist,office worker"
)

POOL_GROUPS = (  # subgroups that no task uses, in whole or in part
    "light-video",
    "money",
    "person-gesture",
    "person-activity",
    "country-flag",
    "emotion",
    "other-symbol",
    "place-other",
    "place-map",
    "award-medal",
    "lock",
    "medical",
    "science",
    "dishware",
    "arts-crafts",
    "writing",
    "other-object",
    "face-costume",
)

POOL_LEFT_OUT = (  # names, or parts of names, that show a class of some task although their subgroup is another
    "running",
    "climbing",
    "cityscape",
    "sunrise over mountains",
    "sunset",
    "night with stars",
    "hollow red circle",
    "chart",
    "kitchen knife",
    "love",
    "mouth",
)
