package clipstep.runtime

import kotlin.math.exp

/** A label and its probability. */
public data class Ranked(val label: String, val probability: Float)

/**
 * The model's prediction after a subclip of a video.
 *
 * [step] is counted from 0 since the start of the video; [framesSeen] is the number of frames that were pushed; [logits] is the artifact's
 * first output, (classes,); [probabilities] are those of each class, depending on the manifest's `output_kind`, smoothed if the stream
 * smooths. [kept] are the outputs that the export kept, by name, flat; [KeptOutput] has their shapes. All arrays belong to this prediction.
 */
public class Prediction internal constructor(
    public val step: Int,
    public val framesSeen: Long,
    public val logits: FloatArray,
    public val probabilities: FloatArray,
    public val labels: List<String>,
    public val kept: Map<String, FloatArray> = emptyMap(),
) {
    /** Returns the [count] likeliest labels with their probabilities, the likeliest first. */
    public fun top(count: Int): List<Ranked> =
        probabilities.indices.sortedByDescending { probabilities[it] }.take(count).map { Ranked(labels[it], probabilities[it]) }
}

/** Returns probabilities from the first output, whose kind is one of [OUTPUT_KINDS], as a new array. */
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
