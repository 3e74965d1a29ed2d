"""The classes of the ten pocket tasks, and what the probe pool may be made of.

A coarse class is one or more Unicode subgroups, less the names that do not belong to the word that we call the class. A fine
class is one name.
"""

from __future__ import annotations

__all__ = ["COARSE", "FINE", "LEFT_OUT", "POOL_GROUPS", "POOL_LEFT_OUT"]


def names(text: str) -> tuple[str, ...]:
    """Split a list that is written as one text."""
    return tuple(text.split(","))


HANDS = ("hand-fingers-open", "hand-fingers-partial", "hand-single-finger", "hand-fingers-closed", "hands")

COARSE: dict[str, dict[str, tuple[str, ...]]] = {  # task -> class -> Unicode subgroups
    "mixed": {
        "worker": ("person-role",),
        "geometric shape": ("geometric",),
        "hand": HANDS,
        "sad face": ("face-concerned",),
        "word button": ("alphanum",),
        "athlete": ("person-sport",),
        "warning sign": ("warning",),
        "road vehicle": ("transport-ground",),
        "mammal": ("animal-mammal",),
        "clock": ("time",),
    },
    "world": {
        "zodiac sign": ("zodiac",),
        "heart": ("heart",),
        "fruit": ("food-fruit",),
        "bird": ("animal-bird",),
        "plant": ("plant-other",),
        "family": ("family",),
        "landscape": ("place-geographic",),
        "punctuation mark": ("punctuation", "math"),
        "building": ("place-building", "place-religious"),
        "smiling face": ("face-smiling", "face-affection"),
    },
    "daily-life": {
        "person": ("person-role", "person-sport"),
        "flower": ("plant-flower",),
        "weather": ("sky-weather",),
        "arrow": ("arrow",),
        "public sign": ("transport-sign",),
        "hand": HANDS,
        "media button": ("av-symbol",),
        "religious symbol": ("religion",),
        "musical instrument": ("musical-instrument",),
        "prepared food": ("food-prepared", "food-asian"),
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

# Names that the backbones tell apart, chosen by the nearest class mean over renderings other than those of the tasks; accuracy on
# these tasks is therefore no measure of the backbones (the held-out Fluent family is), but of how well a prompt was tuned.
FINE: dict[str, tuple[str, ...]] = {
    "animals": names(
        "cow face,dog face,giraffe,hamster,hedgehog,hippopotamus,horse,lion,mouse face,panda,pig face,polar bear,skunk,"
        "tiger face,zebra,black bird,duck,parrot,peacock,crab,dolphin,lobster,oyster,seal,whale,cockroach,honeybee,"
        "lady beetle,sauropod,frog"
    ),
    "fruits-and-vegetables": names(
        "lemon,lime,red apple,strawberry,watermelon,beans,brown mushroom,carrot,eggplant,garlic,onion,pea pod,peanuts,"
        "potato,bouquet,hibiscus,hyacinth,sunflower,tulip,white flower,deciduous tree,mushroom,palm tree,potted plant,"
        "seedling"
    ),
    "dishes": names(
        "green salad,hamburger,meat on bone,pizza,popcorn,pot of food,pretzel,shallow pan of food,bento box,dango,"
        "fish cake with swirl,fortune cookie,fried shrimp,oden,rice ball,rice cracker,steaming bowl,sushi,takeout box,"
        "cookie,custard,soft ice cream,bottle with popping cork,bubble tea,clinking beer mugs,cocktail glass,"
        "glass of milk,hot beverage,mate,wine glass"
    ),
    "vehicles-and-buildings": names(
        "ambulance,auto rickshaw,fire engine,motorized wheelchair,mountain railway,oncoming police car,oncoming taxi,"
        "pickup truck,railway car,sport utility vehicle,ring buoy,sailboat,speedboat,airplane,airplane arrival,"
        "flying saucer,convenience store,hospital,hut,office building,tokyo tower,wedding,church,shinto shrine,"
        "national park,volcano"
    ),
    "faces": names(
        "face with rolling eyes,head shaking horizontally,head shaking vertically,cold face,exploding head,face vomiting,"
        "face with head bandage,nauseated face,sneezing face,partying face,smiling face with sunglasses,crying face,"
        "flushed face,slightly frowning face,yawning face,face with symbols on mouth,skull and crossbones,"
        "smiling face with horns,weary cat,speak no evil monkey"
    ),
    "things": names(
        "fire extinguisher,mouse trap,plunger,razor,soap,sponge,window,american football,bowling,boxing glove,"
        "curling stone,softball,volleyball,bullseye,chess pawn,crystal ball,diamond suit,flower playing cards,joystick,"
        "magic wand,pool 8 ball,puzzle piece,slot machine,spade suit,teddy bear,firecracker,jack o lantern,japanese dolls,"
        "red envelope,ribbon"
    ),
    "signs": names(
        "light blue heart,mending heart,pink heart,sparkling heart,two hearts,mantelpiece clock,six thirty,watch,"
        "cloud with lightning,crescent moon,full moon,full moon face,glowing star,high voltage,last quarter moon,new moon,"
        "new moon face,ringed planet,snowflake,snowman without snow,star,tornado,waxing crescent moon,waxing gibbous moon"
    ),
}

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
