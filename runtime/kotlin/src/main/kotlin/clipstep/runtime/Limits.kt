package clipstep.runtime

private const val TENSOR_BYTES = 1L shl 30 // The largest size of a step's frames and states together, which are kept for each stream.
private const val STATES = 256
private const val LABELS = 100_000
private const val LABEL_LENGTH = 1000
private const val FILE_LENGTH = 80
internal const val CHANNELS = 256
internal const val CHANNEL_LENGTH = 80

/** Checks the numbers and names in a manifest, as Python's `limits.py` does, so that no manifest can exhaust memory or be ambiguous. */
internal fun checkLimits(manifest: Manifest) {
    checkShapes(listOf(manifest.input.shape) + manifest.states.map { it.shape } + manifest.keptOutputs.map { it.shape })
    checkStates(manifest.states.map { it.name }, manifest.outputs, manifest.keptOutputs.map { it.name })
    checkLabels(manifest.labels)
    checkFiles(manifest)
}

private fun checkShapes(shapes: List<List<Int>>) {
    val needed = shapes.sumOf { shape -> shape.fold(1.0) { product, n -> product * n } } * Float.SIZE_BYTES
    require(needed <= TENSOR_BYTES) { "frames and states must fit into $TENSOR_BYTES bytes, not $needed" }
}

private fun checkStates(names: List<String>, outputs: List<String>, kept: List<String>) {
    require(names.size <= STATES) { "there may be $STATES states, not ${names.size}" }
    require(kept.size <= STATES) { "there may be $STATES kept outputs, not ${kept.size}" }
    val expected = listOf("logits") + names.map { "${it}_out" } + kept
    require(outputs == expected) { "outputs must be ${expected.joinToString().take(200)}" }
    val all = listOf("frames") + names + expected
    require("" !in names + kept && all.distinct().size == all.size) { "the names of frames, states and outputs must not be empty, and differ from each other" }
}

private fun checkLabels(labels: List<String>) {
    require(labels.size <= LABELS) { "there may be $LABELS labels, not ${labels.size}" }
    labels.forEachIndexed { index, label ->
        require(label.isNotBlank() && label.codePointCount(0, label.length) <= LABEL_LENGTH) { "label $index must have 1 to $LABEL_LENGTH characters" }
    }
}

/** Checks that no file has a reserved or too long name or lies inside another file. Several artifacts may have the same file. */
private fun checkFiles(manifest: Manifest) {
    val golden = plainParts(manifest.golden.file)
    val files = manifest.artifacts.map { plainParts(it.file) }.distinct() + listOf(golden)
    files.forEachIndexed { one, parts ->
        val name = parts.joinToString("/")
        require(name.codePointCount(0, name.length) <= FILE_LENGTH) { "a file's name may have $FILE_LENGTH characters, not ${name.length}" }
        require(parts[0] != MANIFEST && parts[0] != SIGNATURE) { "${parts[0]} cannot be an artifact" }
        require(files.withIndex().none { (two, other) -> two != one && other.take(parts.size) == parts }) { "$name is named twice" }
    }
    val kinds = manifest.artifacts.map { listOf(it.target, it.platform, it.precision) }
    kinds.groupBy { it }.values.firstOrNull { it.size > 1 }?.let { throw IllegalArgumentException("there are two artifacts for ${it[0].joinToString()}") }
}

/** The parts of a file's name, without empty ones and dots. */
internal fun plainParts(file: String): List<String> = file.split("/").filter { it.isNotEmpty() && it != "." }
