"""Palettes of public data sets: which value and which colour is which structure.

Each line is a value, a colour and a name. The values and colours are facts of the data sets'
published tables:

* Cityscapes: ``cityscapesscripts/helpers/labels.py`` of the data set's authors (Cordts et al.,
  CVPR 2016). The columns are id, id for training (``-`` where it is not evaluated), colour, name.
* PASCAL VOC: the colour map of the development kit (Everingham et al., IJCV 2010), which counts
  the bits of the class number; 255 is the border that is not evaluated.
* CamVid: ``label_colors.txt`` of the data set's authors (Brostow et al., PRL 2009).
"""

from __future__ import annotations

from medseg.datasets.colour_tables import IGNORE, ColourTable, NamedCode

_CITYSCAPES = """
0 - 0 0 0 unlabeled
1 - 0 0 0 ego vehicle
2 - 0 0 0 rectification border
3 - 0 0 0 out of roi
4 - 0 0 0 static
5 - 111 74 0 dynamic
6 - 81 0 81 ground
7 0 128 64 128 road
8 1 244 35 232 sidewalk
9 - 250 170 160 parking
10 - 230 150 140 rail track
11 2 70 70 70 building
12 3 102 102 156 wall
13 4 190 153 153 fence
14 - 180 165 180 guard rail
15 - 150 100 100 bridge
16 - 150 120 90 tunnel
17 5 153 153 153 pole
18 - 153 153 153 polegroup
19 6 250 170 30 traffic light
20 7 220 220 0 traffic sign
21 8 107 142 35 vegetation
22 9 152 251 152 terrain
23 10 70 130 180 sky
24 11 220 20 60 person
25 12 255 0 0 rider
26 13 0 0 142 car
27 14 0 0 70 truck
28 15 0 60 100 bus
29 - 0 0 90 caravan
30 - 0 0 110 trailer
31 16 0 80 100 train
32 17 0 0 230 motorcycle
33 18 119 11 32 bicycle
255 - 0 0 142 license plate
"""

_VOC = """
0 0 0 0 background
1 128 0 0 aeroplane
2 0 128 0 bicycle
3 128 128 0 bird
4 0 0 128 boat
5 128 0 128 bottle
6 0 128 128 bus
7 128 128 128 car
8 64 0 0 cat
9 192 0 0 chair
10 64 128 0 cow
11 192 128 0 diningtable
12 64 0 128 dog
13 192 0 128 horse
14 64 128 128 motorbike
15 192 128 128 person
16 0 64 0 pottedplant
17 128 64 0 sheep
18 0 192 0 sofa
19 128 192 0 train
20 0 64 128 tvmonitor
255 224 224 192 void
"""

_CAMVID = """
64 128 64 Animal
192 0 128 Archway
0 128 192 Bicyclist
0 128 64 Bridge
128 0 0 Building
64 0 128 Car
64 0 192 CartLuggagePram
192 128 64 Child
192 192 128 Column_Pole
64 64 128 Fence
128 0 192 LaneMkgsDriv
192 0 64 LaneMkgsNonDriv
128 128 64 Misc_Text
192 0 192 MotorcycleScooter
128 64 64 OtherMoving
64 192 128 ParkingBlock
64 64 0 Pedestrian
128 64 128 Road
128 128 192 RoadShoulder
0 0 192 Sidewalk
192 128 128 SignSymbol
128 128 128 Sky
64 128 192 SUVPickupTruck
0 0 64 TrafficCone
0 64 64 TrafficLight
192 64 128 Train
128 128 0 Tree
192 128 192 Truck_Bus
64 0 64 Tunnel
192 192 0 VegetationMisc
0 0 0 Void
64 192 0 Wall
"""


def list_palettes() -> tuple[ColourTable, ...]:
    """Return the tables by whose colours masks may be known."""
    return (_read_cityscapes(), read_voc(), _read_camvid())


def read_voc() -> ColourTable:
    """Return PASCAL VOC's classes, by value and by colour."""
    codes: list[NamedCode] = []
    for line in _VOC.strip().splitlines():
        value, red, green, blue, name = line.split(maxsplit=4)
        colour = (int(red), int(green), int(blue))
        codes.append(NamedCode(name, colour, int(value)))
    return ColourTable("PASCAL VOC", tuple(codes))


def read_cityscapes_ids(*, for_training: bool) -> ColourTable:
    """Return Cityscapes' classes by value, as ``_labelIds`` or ``_labelTrainIds`` files hold them.

    What the data set does not evaluate is ignored.
    """
    codes = []
    for value, train_id, colour, name in _split_cityscapes():
        is_evaluated = train_id != "-"
        if for_training and is_evaluated:
            codes.append(NamedCode(name, colour, int(train_id)))
        elif not for_training:
            shown = name if is_evaluated else IGNORE
            codes.append(NamedCode(shown, colour, value))
    if for_training:
        codes.append(NamedCode(IGNORE, None, 255))
    which = "training ids" if for_training else "ids"
    return ColourTable(f"Cityscapes ({which})", tuple(codes))


def _split_cityscapes() -> list[tuple[int, str, tuple[int, int, int], str]]:
    rows = []
    for line in _CITYSCAPES.strip().splitlines():
        value, train_id, red, green, blue, name = line.split(maxsplit=5)
        colour = (int(red), int(green), int(blue))
        rows.append((int(value), train_id, colour, name))
    return rows


def _read_cityscapes() -> ColourTable:
    """Return Cityscapes' classes by colour: of several with one colour, the evaluated one."""
    named = {}
    for _, train_id, colour, name in _split_cityscapes():
        if train_id != "-" or colour not in named:
            named[colour] = name
    codes = [NamedCode(name, colour) for colour, name in named.items()]
    return ColourTable("Cityscapes", tuple(codes))


def _read_camvid() -> ColourTable:
    codes = []
    for line in _CAMVID.strip().splitlines():
        red, green, blue, name = line.split(maxsplit=3)
        colour = (int(red), int(green), int(blue))
        codes.append(NamedCode(name, colour))
    return ColourTable("CamVid", tuple(codes))
