package clipstep.runtime

import java.io.File
import java.io.IOException
import java.security.PublicKey
import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.decodeFromJsonElement

/** The file that makes a folder a bundle. */
const val MANIFEST: String = "manifest.json"

private const val LARGEST_MANIFEST_BYTES = 16L shl 20

/** A bundle, the folder `NAME.clipstep`: opened read-only, and trusted only after its hashes were checked. */
class Bundle private constructor(val path: File, val manifest: Manifest) {
    /**
     * The float32 artifact of that target for this processor, else the one for any.
     *
     * @throws BundleException the bundle has none.
     */
    fun artifact(target: String): Artifact {
        val found = manifest.artifacts.filter { it.target == target && it.precision == "float32" }.associateBy { it.platform }
        val have = manifest.artifacts.map { "${it.target} for ${it.platform}" }.distinct().sorted().joinToString()
        return found[platform()] ?: found["any"] ?: throw BundleException(
            "$path: has no float32 $target artifact for this processor", got = have, fix = "choose another engine or export again",
        )
    }

    companion object {
        /**
         * Reads the manifest and checks every file's size and hash and, if [signer] is given, that this key signed the manifest.
         *
         * @throws BundleException no such bundle, an unknown schema version, a malformed manifest, a file that is missing,
         *   altered or outside the folder; it is not signed by that key.
         */
        @JvmStatic
        @JvmOverloads
        fun open(path: File, signer: PublicKey? = null): Bundle {
            val manifest = readManifest(path, signer)
            for (item in manifest.artifacts + manifest.golden) checkFile(path, item)
            return Bundle(path, manifest)
        }
    }
}

/** The processor in the manifest's words; `any` for one that no artifact is made for. */
internal fun platform(architecture: String = System.getProperty("os.arch").orEmpty()): String =
    when (architecture.lowercase()) {
        "amd64", "x86_64" -> "x86_64"
        "aarch64", "arm64" -> "arm64"
        else -> "any"
    }

private fun checkFile(path: File, item: BundleFile) {
    val file = File(path, item.file)
    if (!file.exists()) throw BundleException("$path: ${item.file} is missing", fix = "copy the bundle again, whole")
    if (!file.canonicalFile.startsWith(path.canonicalFile)) {
        throw BundleException("$path: ${item.file} lies outside the bundle", expected = "files inside the folder")
    }
    val (size, sha256) = treeSize(file) to treeSha256(file)
    if (size != item.sizeBytes || sha256 != item.sha256) {
        throw BundleException(
            "$path: ${item.file} was altered",
            got = "$size bytes, sha256 ${sha256.take(12)}…",
            expected = "${item.sizeBytes} bytes, sha256 ${item.sha256.take(12)}…",
            fix = "export it again",
        )
    }
}

private fun readManifest(path: File, signer: PublicKey?): Manifest {
    val file = File(path, MANIFEST)
    if (!file.isFile) throw BundleException("$path: is not a bundle", got = "no $MANIFEST", expected = "a folder written by clipstep export")
    val values = try {
        if (file.length() > LARGEST_MANIFEST_BYTES) throw BundleException("$path: $MANIFEST is too large", got = "${file.length()} bytes")
        val bytes = file.readBytes()
        if (signer != null) checkSignature(path, bytes, signer)
        Json.parseToJsonElement(bytes.decodeToString())
    } catch (error: SerializationException) {
        throw BundleException("$path: $MANIFEST is not JSON", got = error.reason(), fix = "export it again", cause = error)
    } catch (error: IOException) {
        throw BundleException("$path: $MANIFEST cannot be read", got = error.reason(), cause = error)
    }
    val version = ((values as? JsonObject)?.get("schema_version") as? JsonPrimitive)?.content
    if (version != SCHEMA_VERSION.toString()) {
        throw BundleException("$path: unknown schema version", got = version, expected = SCHEMA_VERSION, fix = "use a clipstep that knows it")
    }
    return try {
        Json.decodeFromJsonElement<Manifest>(values)
    } catch (error: IllegalArgumentException) { // A SerializationException is one, and so is a failed require.
        throw BundleException("$path: $MANIFEST is malformed", got = error.reason(), fix = "export it again", cause = error)
    }
}
