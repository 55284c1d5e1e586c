package clipstep.demo

import clipstep.runtime.Input
import clipstep.runtime.Ranked
import kotlin.math.roundToInt

private const val KEPT_S = 600
private const val MOST = 60 * KEPT_S
internal const val SECOND_US = 1_000_000L

/** How much of a time a class was the likeliest, from 0 to 1. */
data class Share(val name: String, val part: Double)

/**
 * The likeliest classes of a source's predictions, the oldest first. The last ten minutes are kept, in a ring of arrays, so that memory is bounded and nothing is
 * allocated for a prediction. Main thread only.
 */
class Timeline {
    private var times = LongArray(0)
    private var probabilities = FloatArray(0)
    private var classes = IntArray(0)
    private var begins = BooleanArray(0)
    private val names = ArrayList<String>()
    private val numbers = HashMap<String, Int>()
    private var periodUs = 0.0
    private var isFile = false
    private var originUs = 0L
    private var lastStep = -1

    /** What it is of; whatever tells one source from another. */
    var of: Any? = null
        private set

    /** How much of the video a prediction adds, in microseconds. */
    var subclipUs = SECOND_US
        private set

    /** How many predictions are kept. */
    var size = 0
        private set

    /** How many predictions were forgotten. Added to its index it is a prediction's number, which stays the same. */
    var forgotten = 0L
        private set

    /** Forgets all. The next predictions are those of [source]: times are a file's own, and a camera's count from its first prediction's first frame. */
    fun clear(source: Any?, input: Input, isFile: Boolean) {
        of = source
        periodUs = SECOND_US / input.fps
        subclipUs = (input.frames * input.frameStride * periodUs).toLong()
        this.isFile = isFile
        names.clear()
        numbers.clear()
        size = 0
        forgotten = 0
        lastStep = -1
        room((KEPT_S * input.fps / (input.frames * input.frameStride)).roundToInt().coerceIn(1, MOST))
    }

    private fun room(count: Int) {
        times = LongArray(count)
        probabilities = FloatArray(count)
        classes = IntArray(count)
        begins = BooleanArray(count)
    }

    /** Adds a prediction. [timeUs] is its last frame's; a [step] that is not later than the one before says that a new video began. */
    fun add(likeliest: Ranked, timeUs: Long, step: Int) {
        if (size == 0) originUs = if (isFile) 0 else startOf(timeUs)
        if (size == times.size) forgotten++ else size++
        val place = place(size - 1)
        times[place] = maxOf(startOf(timeUs) - originUs, 0)
        probabilities[place] = likeliest.probability
        classes[place] = numbers.getOrPut(likeliest.label) { names.add(likeliest.label).let { names.size - 1 } }
        begins[place] = step <= lastStep
        lastStep = step
    }

    /** The time of the first frame of a subclip whose last frame is at [timeUs], less half a frame, because times are rounded. */
    private fun startOf(timeUs: Long): Long = timeUs - subclipUs + (periodUs / 2).toLong()

    private fun place(index: Int): Int = ((forgotten + index) % times.size).toInt()

    /** When the first frame of a prediction's subclip was. */
    fun startUs(index: Int): Long = times[place(index)]

    fun probability(index: Int): Float = probabilities[place(index)]

    /** The class's number, in the order in which classes came. */
    fun number(index: Int): Int = classes[place(index)]

    fun name(index: Int): String = names[number(index)]

    /** Whether a new video began with it, as after a seek or a gap. */
    fun begins(index: Int): Boolean = begins[place(index)]

    /** Whether its class is another one than that before it. */
    fun changes(index: Int): Boolean = index == 0 || number(index) != number(index - 1)

    /** How many of the newest predictions [seconds] hold, as many as there are. */
    fun lasting(seconds: Int): Int = minOf(size, maxOf((seconds * SECOND_US / subclipUs.toDouble()).roundToInt(), 1))

    /** The parts that the classes have of the predictions from one index to another, which is excluded; the largest first. */
    fun shares(from: Int, to: Int): List<Share> =
        (from until to).groupingBy(::number).eachCount().map { (number, count) -> Share(names[number], count / (to - from).toDouble()) }.sortedByDescending { it.part }
}

private const val MINUTE_S = 60
private const val HOUR_S = 3600
private const val TENS = 10

/** The longest text of [writeClock]. */
internal const val CLOCK_CHARS = 12

/** Writes a time as `m:ss` or `h:mm:ss`, with the digits that follow [zero], and returns how many characters that are. Allocates nothing. */
internal fun writeClock(us: Long, to: CharArray, zero: Char = '0'): Int {
    val seconds = us / SECOND_US
    val hours = seconds / HOUR_S
    var end = 0
    if (hours > 0) {
        end = writeNumber(hours, to, end, zero)
        to[end++] = ':'
    }
    val minutes = seconds % HOUR_S / MINUTE_S
    if (hours > 0 && minutes < TENS) to[end++] = zero
    end = writeNumber(minutes, to, end, zero)
    to[end++] = ':'
    to[end++] = zero + (seconds % MINUTE_S / TENS).toInt()
    to[end++] = zero + (seconds % TENS).toInt()
    return end
}

private fun writeNumber(number: Long, to: CharArray, at: Int, zero: Char): Int {
    var places = 1
    var rest = number / TENS
    while (rest > 0) {
        places++
        rest /= TENS
    }
    rest = number
    for (i in at + places - 1 downTo at) {
        to[i] = zero + (rest % TENS).toInt()
        rest /= TENS
    }
    return at + places
}

/** Returns a time as [writeClock] writes it. */
internal fun clock(us: Long, zero: Char = '0'): String = CharArray(CLOCK_CHARS).let { String(it, 0, writeClock(us, it, zero)) }
