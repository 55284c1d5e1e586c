package clipstep.runtime

import java.io.File
import java.security.KeyPairGenerator
import java.util.Base64
import kotlinx.serialization.json.JsonPrimitive
import org.junit.Assert.assertEquals
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

/** Against a signature that Python made. */
class SignatureTest {
    @get:Rule
    val folder = TemporaryFolder()

    private val pem = File(Prepared.folder, "signer.pub.pem").readText()
    private val signer = signerKey(pem)

    @Test
    fun `a bundle that Python signed opens`() {
        assertEquals("small", Bundle.open(Prepared.small, signer).manifest.name)
    }

    @Test
    fun `a changed manifest is refused`() {
        val bundle = folder.copied(Prepared.small)
        edit(bundle) { it["name"] = JsonPrimitive("other") }
        assertEquals("other", Bundle.open(bundle).manifest.name)
        assertExplains("its signature is not of this manifest", "changed after signing") { Bundle.open(bundle, signer) }
    }

    @Test
    fun `a bundle without a signature is refused`() {
        assertExplains("is not signed", "no signature.json") { Bundle.open(Prepared.bundle, signer) }
    }

    @Test
    fun `the signature of another bundle is refused`() {
        val bundle = folder.copied()
        File(Prepared.small, SIGNATURE).copyTo(File(bundle, SIGNATURE))
        assertExplains("its signature is not of this manifest") { Bundle.open(bundle, signer) }
    }

    @Test
    fun `another signer is named`() {
        val other = KeyPairGenerator.getInstance("Ed25519").generateKeyPair().public
        val raw = Base64.getEncoder().encodeToString(other.encoded.takeLast(32).toByteArray())
        assertExplains("is signed by another key", "expected $raw") { Bundle.open(Prepared.small, other) }
    }

    @Test
    fun `a key that is named anew does not help`() {
        val bundle = folder.copied(Prepared.small)
        val other = KeyPairGenerator.getInstance("Ed25519").generateKeyPair().public
        val names = listOf(signer, other).map { key -> Base64.getEncoder().encodeToString(key.encoded.takeLast(32).toByteArray()) }
        File(bundle, SIGNATURE).let { it.writeText(it.readText().replace(names[0], names[1])) }
        assertExplains("its signature is not of this manifest") { Bundle.open(bundle, other) }
    }

    @Test
    fun `a damaged signature file is one error`() {
        val bundle = folder.copied(Prepared.small)
        for (text in listOf("", "{}", "[]", "{\"public_key\": \"!\", \"signature\": \"!\"}", File(Prepared.small, SIGNATURE).readText().replace("Ed25519", "none"))) {
            File(bundle, SIGNATURE).writeText(text)
            assertExplains("signature.json is malformed", "sign it again") { Bundle.open(bundle, signer) }
        }
    }

    @Test
    fun `what is no public key is refused`() {
        assertExplains("is not a public key") { signerKey(File(Prepared.folder, "signer.pem").readText()) }
        assertExplains("is not an Ed25519 key") { signerKey(pem.replace("MCow", "MCoz")) }
    }
}
