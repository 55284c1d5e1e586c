package clipstep.user;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import clipstep.runtime.*;
import java.io.File;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.Test;

/** The library as a user of Java writes it: nothing here names a class that Kotlin made up, or a parameter that has a default. */
public class JavaUserTest {
    private final File path = new File(System.getProperty("clipstep.prepared"), "demo.clipstep");

    @Test
    public void framesBecomePredictions() {
        try (StepModel model = StepModel.load(path); Stream stream = model.stream(0.5f)) {
            Prediction last = null;
            for (int i = 0; i < 16; i++) {
                Frame frame = new Frame(1, 1, new byte[] {1, 2, 3});
                Prediction prediction = stream.push(frame);
                assertEquals(i == 15, prediction != null);
                last = prediction;
            }
            Ranked best = last.top(1).get(0);
            assertTrue(model.getLabels().contains(best.getLabel()) && best.getProbability() >= 0.5f);
            StepResult result = model.step(new byte[16 * 112 * 112 * 3], model.initialStates());
            assertEquals(Arrays.asList(2, 2), Arrays.asList(result.getLogits().length, result.getStates().size()));
        }
    }

    @Test
    public void enginesAreTypesWithSettings() {
        try (StepModel model = StepModel.load(path, new OnnxRuntime(Arrays.asList(Provider.CPU), true), 2)) {
            assertTrue(model.getDescription(), model.getDescription().endsWith("in onnxruntime, 2 threads, spinning"));
        }
        assertEquals(ExecuTorch.INSTANCE, Engine.named("executorch"));
        List<String> names = new ArrayList<>();
        for (Engine engine : Engine.getAll()) names.add(engine.getId());
        assertEquals(Arrays.asList("onnxruntime", "executorch"), names);
        assertFalse(ExecuTorch.INSTANCE.isPresent());
        ClipstepException error = assertThrows(ClipstepException.class, () -> StepModel.load(path, ExecuTorch.INSTANCE));
        assertTrue(error.getMessage(), error.getWhat().endsWith("has no float32 executorch artifact for this processor"));
    }

    @Test
    public void aBundleIsOpenedCheckedAndProven() {
        try (Bundle bundle = Bundle.open(path); StepModel model = StepModel.load(bundle)) {
            assertEquals("onnx", bundle.artifact("onnx").getTarget());
            assertEquals(bundle.getManifest().getGolden().getSha256(), Hashes.treeSha256(new File(path, "golden.safetensors")));
            List<Long> told = new ArrayList<>();
            GoldenSteps golden = GoldenSteps.of(bundle);
            Errors errors = GoldenChecks.checkGolden(model, golden, "float32", (done, total) -> told.add(total - done));
            assertTrue(errors.getRelative() < GoldenChecks.BOUNDS.get("float32"));
            assertEquals(Long.valueOf(0), told.get(told.size() - 1));
            assertEquals(16, GoldenChecks.checkGolden(model, golden).getSteps());
            assertEquals("2.0", FormatVersions.SCHEMA_VERSION);
            assertTrue(Manifests.TARGETS.contains("onnx") && Bundles.MANIFEST.equals("manifest.json") && Signatures.SIGNATURE.endsWith(".json"));
        }
    }
}
