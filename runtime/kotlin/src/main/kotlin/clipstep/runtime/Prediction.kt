package clipstep.runtime

import kotlin.math.exp

/** A label and its probability. */
data class Ranked(val label: String, val probability: Float)

/**
 * What the model says of a video after a subclip.
 *
 * [step] counts from 0 since the start of the stream or its last reset; [framesSeen] are the frames that the stream took in
 * until then; [logits] is the artifact's first output, (classes,); [probabilities] is what it says of each class, as the manifest's
 * `output` has it, smoothed if the stream smooths. Both arrays are this prediction's own.
 */
class Prediction internal constructor(
    val step: Int,
    val framesSeen: Long,
    val logits: FloatArray,
    val probabilities: FloatArray,
    val labels: List<String>,
) {
    /** The [count] likeliest labels and their probabilities, the likeliest first. */
    fun top(count: Int): List<Ranked> =
        probabilities.indices.sortedByDescending { probabilities[it] }.take(count).map { Ranked(labels[it], probabilities[it]) }
}

/** Probabilities from what the first output holds, one of [OUTPUTS]; a new array, also where nothing is to be applied. */
internal fun probabilities(values: FloatArray, output: String): FloatArray = when (output) {
    "logits" -> softmax(values)
    "multilabel_logits" -> FloatArray(values.size) { (1 / (1 + exp(-values[it].toDouble()))).toFloat() }
    else -> values.copyOf()
}

/** Softmax. */
private fun softmax(logits: FloatArray): FloatArray {
    var largest = Float.NEGATIVE_INFINITY
    for (value in logits) if (value > largest) largest = value
    val values = FloatArray(logits.size)
    var sum = 0.0
    for (i in values.indices) {
        val value = exp((logits[i] - largest).toDouble())
        values[i] = value.toFloat()
        sum += value
    }
    for (i in values.indices) values[i] = (values[i] / sum).toFloat()
    return values
}
