@file:JvmName("Bundles")

package clipstep.runtime

import java.io.Closeable
import java.io.File
import java.io.IOException
import java.security.PublicKey
import kotlinx.serialization.json.encodeToJsonElement

/** The file that makes a folder a bundle. */
public const val MANIFEST: String = "manifest.json"

/** Files that belong to a bundle although its manifest does not name them. */
private val BESIDE_MANIFEST = listOf(SIGNATURE)

/**
 * A bundle, the folder `NAME.clipstep` or the pack `NAME.clipstep.zip`, open for reading. No file is used before its hash was checked.
 *
 * [close] deletes the files that were unpacked from a pack; a bundle that is a folder need not be closed.
 */
public class Bundle private constructor(
    /** The folder, or the pack. */
    public val path: File,
    public val manifest: Manifest,
    /** The SHA-256 of the manifest's bytes. */
    public val manifestSha256: String,
    /** The keys of the manifest that were not read, because a newer minor version of the format added them. */
    public val ignored: List<String>,
    private val contents: Contents,
) : Closeable {
    private val checked = mutableSetOf<String>()
    private val items: List<BundleFile> get() = manifest.artifacts + manifest.golden

    /** The files that the manifest names and that are not there. That is an error only once one of them is needed. */
    public val missing: List<String> get() = items.filter { parts(it).isEmpty() }.map { it.file }

    /** The files that are there and that the manifest does not name; nothing reads them. */
    public val extra: List<String>
        get() {
            val named = items.flatMap { parts(it) } + MANIFEST + BESIDE_MANIFEST
            return (contents.sizes.keys + contents.unusable.keys - named.toSet()).sorted()
        }

    /**
     * Returns an artifact's file or that of the golden steps, checked against the manifest; from a pack it is unpacked first.
     *
     * @throws BundleException it is missing, altered, or lies outside the bundle.
     */
    @Synchronized
    public fun file(item: BundleFile): File {
        check(item)
        return reading(path, item.file) { File(contents.place(parts(item)), item.file) }
    }

    /**
     * Returns the artifact of a target and a [precision], `float32`, `float16` or `int8`: that for this processor or, if there is none, the one for any.
     *
     * @throws BundleException the bundle has none.
     * @throws ClipstepException there is no such precision.
     */
    @JvmOverloads
    public fun artifact(target: String, precision: String = "float32"): Artifact {
        if (precision !in PRECISIONS) throw ClipstepException("unknown precision", got = precision, expected = "one of ${PRECISIONS.joinToString()}")
        val found = manifest.artifacts.filter { it.target == target && it.precision == precision }.associateBy { it.platform }
        val artifact = found[platform()] ?: found["any"] ?: throw BundleException(
            "$path: has no $precision $target artifact for this processor",
            got = manifest.artifacts.map { it.kind }.distinct().sorted().joinToString(),
            fix = "choose another engine or precision, or export again",
        )
        if (parts(artifact).isEmpty()) check(artifact)
        return artifact
    }

    /**
     * Returns the precision of a target that runtimes take unless they are asked for another: the one that `clipstep export --tune` chose for this
     * processor, and otherwise `float32`.
     */
    public fun chosenPrecision(target: String): String =
        manifest.choices.find { it.target == target && it.platform == platform() }?.precision ?: "float32"

    /** Deletes the files that were unpacked from a pack. It may be called twice. */
    override fun close(): Unit = contents.close()

    override fun toString(): String = "Bundle(${manifest.name} at $path: ${manifest.artifacts.joinToString { it.file }})"

    /** The names of an item's files, several if it is a folder. */
    private fun parts(item: BundleFile): List<String> {
        val whole = plainParts(item.file).joinToString("/")
        return (contents.sizes.keys + contents.unusable.keys).filter { it == whole || (it.startsWith("$whole/") && !isClutter(it)) }
    }

    private fun check(item: BundleFile) {
        if (item.file in checked) return
        val parts = parts(item)
        if (parts.isEmpty()) throw BundleException("$path: ${item.file} is missing", fix = "copy the bundle again, whole")
        parts.firstOrNull { it in contents.unusable }?.let {
            throw BundleException("$path: $it ${contents.unusable[it]}", expected = "files inside the folder")
        }
        val size = parts.sumOf { contents.sizes.getValue(it) }
        val sha256 = if (size != item.sizeBytes) "" else reading(path, item.file) { treeSha256(item.file, parts, contents) }
        if (sha256 != item.sha256) {
            val hash = if (sha256.isEmpty()) "" else ", sha256 ${sha256.take(12)}…"
            throw BundleException(
                "$path: ${item.file} was altered", got = "$size bytes$hash", expected = "${item.sizeBytes} bytes, sha256 ${item.sha256.take(12)}…",
                fix = "export it again",
            )
        }
        checked += item.file
    }

    public companion object {
        /**
         * Reads the manifest, and checks the size and the hash of every file that is there and, if [signer] is given, that this key
         * signed the manifest.
         *
         * @throws BundleException there is no such bundle; its format has another major version; the manifest is malformed, or not signed by that
         *   key; a file was altered or lies outside the bundle.
         */
        @JvmStatic
        @JvmOverloads
        public fun open(path: File, signer: PublicKey? = null): Bundle = open(path, lazily = false, signer = signer)

        /** Opens a bundle as the other function does, but with [lazily] each file is checked only when it is used. */
        internal fun open(path: File, lazily: Boolean, signer: PublicKey? = null): Bundle {
            val contents = contents(path)
            try {
                val text = text(path, contents, MANIFEST)
                    ?: throw BundleException("$path: is not a bundle", got = "no $MANIFEST", expected = "a folder written by clipstep export, or a pack of it")
                if (signer != null) checkSignature(path, text, signer, text(path, contents, SIGNATURE))
                val (manifest, ignored) = manifestIn("$path", text)
                val bundle = Bundle(path, manifest, sha256(text), ignored, contents)
                if (bundle.manifest.artifacts.all { bundle.parts(it).isEmpty() }) bundle.check(bundle.manifest.artifacts[0])
                if (!lazily) for (item in bundle.items) if (bundle.parts(item).isNotEmpty()) bundle.check(item)
                return bundle
            } catch (error: ClipstepException) {
                contents.close()
                throw error
            }
        }

        /**
         * Checks a pack and unpacks it to [folder], which then is a bundle: the manifest, the golden steps, and the artifacts of these [targets].
         * [progress] is told how many bytes of how many are written, before the first and after each piece; what it throws ends the unpacking.
         *
         * @throws BundleException see [open]; or the pack has no artifact of these targets.
         */
        @JvmStatic
        @JvmOverloads
        public fun unpack(pack: File, folder: File, targets: Collection<String> = TARGETS, progress: Progress = Progress { _, _ -> }): Unit = open(pack).use { bundle ->
            val names = wanted(bundle.manifest, targets, "$pack").flatMap { bundle.parts(it) } + MANIFEST
            reading(pack, "what is in it") { bundle.contents.copy(names, folder, progress) }
        }

        /**
         * Reads a manifest before the files that it names are there. [name] is what errors call the bundle.
         *
         * @throws BundleException its format has another major version, or it is malformed.
         */
        @JvmStatic
        public fun manifest(text: ByteArray, name: String): Manifest {
            if (text.size > LARGEST_JSON) throw BundleException("$name: $MANIFEST is too large", got = "${text.size} bytes", expected = "at most $LARGEST_JSON")
            return manifestIn(name, text).first
        }

        /**
         * Returns the files that a device needs which runs artifacts of these [targets]: those artifacts and the golden steps. [name] is what errors call the bundle.
         *
         * @throws BundleException there is no such artifact.
         */
        @JvmStatic
        public fun wanted(manifest: Manifest, targets: Collection<String>, name: String): List<BundleFile> {
            val artifacts = manifest.artifacts.filter { it.target in targets }
            if (artifacts.isNotEmpty()) return artifacts.distinctBy { it.file } + manifest.golden
            throw BundleException(
                "$name: nothing in it runs here", got = manifest.artifacts.map { it.kind }.distinct().sorted().joinToString(),
                expected = "an artifact for ${targets.joinToString(" or ")}", fix = "export it again with such a target",
            )
        }
    }
}

/** What an artifact is for, such as `onnx for any` or `float16 executorch for arm64`. */
private val Artifact.kind: String get() = "${if (precision == "float32") "" else "$precision "}$target for $platform"

/** This processor as manifests call it, or `any` for one that no artifact is made for. */
internal fun platform(architecture: String = System.getProperty("os.arch").orEmpty()): String =
    when (architecture.lowercase()) {
        "amd64", "x86_64" -> "x86_64"
        "aarch64", "arm64" -> "arm64"
        else -> "any"
    }

/** The bytes of the manifest or of its signature; null if there is none. */
private fun text(path: File, contents: Contents, name: String): ByteArray? {
    contents.unusable[name]?.let { throw BundleException("$path: $name $it", expected = "files inside the folder") }
    val size = contents.sizes[name] ?: return null
    if (size > LARGEST_JSON) throw BundleException("$path: $name is too large", got = "$size bytes", expected = "at most $LARGEST_JSON")
    return reading(path, name) { contents.open(name).use { it.readBytes() } }
}

/** Converts the exceptions of a disk or of a damaged zip file to a [BundleException]. */
private fun <T> reading(path: File, name: String, action: () -> T): T = try {
    action()
} catch (error: IOException) {
    throw BundleException("$path: $name cannot be read", got = error.reason(), cause = error)
}

/** Returns the manifest, and the keys that were ignored because a newer minor version added them. */
private fun manifestIn(path: String, text: ByteArray): Pair<Manifest, List<String>> {
    val values = try {
        parseStrictJson(text)
    } catch (error: ClipstepException) {
        throw BundleException("$path: $MANIFEST ${error.message}", fix = "export it again", cause = error)
    }
    val version = checkVersion(values, path)
    return try {
        decoded<Manifest>(values, version).also { (manifest) -> checkKinds(values, WHOLE.encodeToJsonElement(manifest), "") }
    } catch (error: IllegalArgumentException) { // A SerializationException is one, and so is a failed require.
        throw BundleException("$path: $MANIFEST is malformed", got = error.reason(), fix = malformedFix(version), cause = error)
    }
}
