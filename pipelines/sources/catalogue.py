"""Facts about each data set that need none of its files."""

from dataclasses import dataclass

from keras_attn.preprocessing import IMAGENET_MEAN, IMAGENET_STD

# In the order of TensorFlow Datasets, which is not the sorted one.
FLOWERS_CLASSES = ("dandelion", "daisy", "tulips", "sunflowers", "roses")
CIFAR10_CLASSES = tuple(
    "airplane automobile bird cat deer dog frog horse ship truck".split()
)
# The fine classes in the order of their numbers.
CIFAR100_CLASSES = tuple(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge
    bus butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud
    cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox
    girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man
    maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree
    pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
    road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel
    streetcar sunflower sweet_pepper table tank telephone television tiger tractor train
    trout tulip turtle wardrobe whale willow_tree wolf woman worm
    """.split()
)


@dataclass(frozen=True)
class Known:
    """Facts about a data set.

    Attributes:
        class_names: In the order of the labels; empty when the files decide.
        mean, std: Channel statistics of the training images, in 0..1.
        licence, url: Terms of use and home.
        examples: Images in all; 0 when the files decide.
        archive: File name of the official archive that can be read, or "".
        num_classes: Number of classes where their names are not listed here; 0 when
            the files decide. See `class_count`.
        has_objects: Whether the place of each image's object is known, as its box at
            least.
        synthetic: Whether images are computed at the requested size, from no files.
        parts: Parts of the data set in TensorFlow Datasets, of those whose images stay
            in its files.
        manual: Files that TensorFlow Datasets cannot download by itself.
        builder: Its name in TensorFlow Datasets where that is another one.
        unpacked: Official files that are read from one folder, after unpacking.
        first_pixel: Number of the first row and column in its boxes; 1 where they are
            given by their first and last pixel, as in MATLAB.
        banner: Rows at the bottom of its images that are to be cut off.
    """

    class_names: tuple[str, ...] = ()
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    licence: str = "unknown"
    url: str = ""
    examples: int = 0
    archive: str = ""
    num_classes: int = 0
    has_objects: bool = False
    synthetic: bool = False
    parts: tuple[str, ...] = ()
    manual: tuple[str, ...] = ()
    builder: str = ""
    unpacked: tuple[str, ...] = ()
    first_pixel: int = 0
    banner: int = 0

    @property
    def class_count(self):
        """Number of classes; 0 when the files decide."""
        return len(self.class_names) or self.num_classes

    def other_way(self):
        """Advice on how to get the data without TensorFlow Datasets."""
        if self.archive:
            return f"get {self.archive} from {self.url} and pass it as path"
        if self.unpacked:
            return (
                f"get {', '.join(self.unpacked)} from {self.url}, unpack them into one "
                "folder and pass it as path"
            )
        return "pass a folder of train/CLASS/image and val/CLASS/image"


KNOWN = {
    "generated": Known(num_classes=10, has_objects=True, synthetic=True),
    "cifar10": Known(
        class_names=CIFAR10_CLASSES,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        licence="CIFAR-10, Krizhevsky 2009, research use",
        url="https://www.cs.toronto.edu/~kriz/cifar.html",
        examples=60_000,
        archive="cifar-10-binary.tar.gz",
    ),
    "cifar100": Known(
        class_names=CIFAR100_CLASSES,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        licence="CIFAR-100, Krizhevsky 2009, research use",
        url="https://www.cs.toronto.edu/~kriz/cifar.html",
        examples=60_000,
        archive="cifar-100-binary.tar.gz",
    ),
    "miniimagenet": Known(
        licence="ImageNet terms of access, non-commercial research",
        url="https://github.com/twitter-research/meta-learning-lstm",
        examples=60_000,
        num_classes=100,
    ),
    "tf_flowers": Known(
        class_names=FLOWERS_CLASSES,
        # Of 2,934 of the 3,670 photographs, reduced to a shorter side of 256.
        mean=(0.465, 0.426, 0.306),
        std=(0.299, 0.272, 0.293),
        licence="CC-BY, each photograph's author in its LICENSE.txt",
        url="http://download.tensorflow.org/example_images/flower_photos.tgz",
        examples=3670,
        archive="flower_photos.tgz",
        parts=("train",),
    ),
    "imagenet2012": Known(
        licence="ImageNet terms of access, non-commercial research",
        url="https://image-net.org/download-images",
        examples=1_331_167,
        num_classes=1000,
        parts=("train", "validation"),
        manual=("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"),
    ),
    "cub200_2011": Known(
        licence="Caltech, non-commercial research and education; each image its own",
        url="https://data.caltech.edu/records/65de6-vp158",
        examples=11_788,
        archive="CUB_200_2011.tgz",
        num_classes=200,
        has_objects=True,
        parts=("train", "test"),
        builder="caltech_birds2011",
    ),
    "stanford_cars": Known(
        licence="ImageNet terms of access, non-commercial research",
        url="https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
        examples=16_185,
        num_classes=196,
        has_objects=True,
        parts=("train", "test"),
        builder="cars196",
        unpacked=(
            "cars_train.tgz",
            "cars_test.tgz",
            "car_devkit.tgz",
            "cars_test_annos_withlabels.mat",
        ),
        first_pixel=1,
    ),
    "fgvc_aircraft": Known(
        licence="photographers' copyright, non-commercial research",
        url="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
        examples=10_000,
        num_classes=100,
        has_objects=True,
        unpacked=("fgvc-aircraft-2013b.tar.gz",),
        first_pixel=1,
        banner=20,
    ),
    "inaturalist2017": Known(
        licence="iNaturalist terms of service, non-commercial research and education",
        url="https://github.com/visipedia/inat_comp/tree/master/2017",
        examples=675_170,
        num_classes=5089,
        has_objects=True,
        parts=("train", "validation"),
        builder="i_naturalist2017",
        unpacked=("train_val_images.tar.gz", "train_val2017.zip"),
    ),
    "folder": Known(),
}
