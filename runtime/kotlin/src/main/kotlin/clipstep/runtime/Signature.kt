@file:JvmName("Signatures")

package clipstep.runtime

import java.io.File
import java.security.GeneralSecurityException
import java.security.KeyFactory
import java.security.PublicKey
import java.security.spec.X509EncodedKeySpec
import java.util.Base64
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.decodeFromJsonElement

/** The file with the signature of a bundle's manifest, which `clipstep sign` writes. */
public const val SIGNATURE: String = "signature.json"

private const val ALGORITHM = "Ed25519"
private const val RAW_KEY_BYTES = 32

/** The content of [SIGNATURE]. Its public key only names the signer in messages: a signature is checked with the key that the caller gives. */
@Serializable
private class SignatureFile(
    @SerialName("schema_version") val schemaVersion: Int = 1,
    val algorithm: String = ALGORITHM,
    @SerialName("public_key") val publicKey: String,
    val signature: String,
)

/**
 * Returns the signer's public key from the text of a PEM file, as `clipstep sign --new-key` writes it, for [Bundle.open].
 *
 * Ed25519 is in Java from version 15 on, and in Android from version 13 (API 33) on.
 *
 * @throws ClipstepException it is not a public Ed25519 key, or this platform has no Ed25519.
 */
public fun signerKey(pem: String): PublicKey {
    val body = Regex("-----BEGIN PUBLIC KEY-----(.*?)-----END PUBLIC KEY-----", RegexOption.DOT_MATCHES_ALL).find(pem)
        ?: throw ClipstepException("the signer's key is not a public key", expected = "PEM, as clipstep sign --new-key writes it")
    val factory = try {
        KeyFactory.getInstance(ALGORITHM)
    } catch (error: GeneralSecurityException) {
        throw ClipstepException("this platform has no $ALGORITHM", expected = "Java 15, or Android 13 (API 33)", cause = error)
    }
    return try {
        factory.generatePublic(X509EncodedKeySpec(Base64.getMimeDecoder().decode(body.groupValues[1])))
    } catch (error: GeneralSecurityException) {
        throw ClipstepException("the signer's key is not an $ALGORITHM key", got = error.reason(), cause = error)
    } catch (error: IllegalArgumentException) { // Thrown by the Base64 decoder.
        throw ClipstepException("the signer's key is damaged", got = error.reason(), cause = error)
    }
}

/** Checks that [signer] signed the bytes of [manifest]; [text] is the content of the signature file. */
internal fun checkSignature(bundle: File, manifest: ByteArray, signer: PublicKey, text: ByteArray?) {
    if (text == null) throw BundleException("$bundle: is not signed", got = "no $SIGNATURE", expected = "a signature by the key that was given")
    val (signedBy, signature) = try {
        val values = Json.decodeFromJsonElement<SignatureFile>(parseStrictJson(text))
        require(values.schemaVersion == 1 && values.algorithm == ALGORITHM) { "${values.algorithm}, version ${values.schemaVersion}" }
        Base64.getDecoder().decode(values.publicKey) to Base64.getDecoder().decode(values.signature)
    } catch (error: IllegalArgumentException) { // A SerializationException is one.
        throw BundleException("$bundle: $SIGNATURE is malformed", got = error.reason(), fix = "sign it again", cause = error)
    } catch (error: ClipstepException) {
        throw BundleException("$bundle: $SIGNATURE is malformed", got = error.reason(), fix = "sign it again", cause = error)
    }
    val given = signer.encoded.takeLast(RAW_KEY_BYTES).toByteArray()
    if (!signedBy.contentEquals(given)) {
        val (got, expected) = listOf(signedBy, given).map { Base64.getEncoder().encodeToString(it) }
        throw BundleException("$bundle: is signed by another key", got = got, expected = expected)
    }
    val valid = try {
        java.security.Signature.getInstance(ALGORITHM).run {
            initVerify(signer)
            update(manifest)
            verify(signature)
        }
    } catch (error: GeneralSecurityException) { // Such as a signature of another length.
        false
    }
    if (!valid) {
        throw BundleException(
            "$bundle: its signature is not of this manifest",
            got = "a manifest that was changed after signing, or the signature of another bundle",
            fix = "get the bundle again from its maker, or sign it again",
        )
    }
}
