import org.jetbrains.kotlin.gradle.dsl.JvmTarget

// The library as a module of a Gradle build, such as android_demo. By itself it is built, tested and published by Maven: pom.xml.
plugins {
    alias(libs.plugins.kotlin.jvm)
    alias(libs.plugins.kotlin.serialization)
}

// A stand-in to compile against, and for tests; not part of the library.
val executorchApi: SourceSet by sourceSets.creating { java.srcDir("executorch-api/src/main/java") }
val executorchApiJar by tasks.registering(Jar::class) {
    archiveClassifier = "executorch-api"
    from(executorchApi.output)
}
configurations.consumable("executorchApi") { outgoing.artifact(executorchApiJar) }

java {
    sourceCompatibility = JavaVersion.VERSION_1_8
    targetCompatibility = JavaVersion.VERSION_1_8
}

kotlin {
    explicitApi()
    compilerOptions {
        jvmTarget = JvmTarget.JVM_1_8
        allWarningsAsErrors = true
        freeCompilerArgs.add("-Xjdk-release=1.8")
    }
}

tasks.jar { manifest { attributes("Automatic-Module-Name" to "clipstep.runtime") } }

// What make test-android wrote. As on a phone without its AAR, ExecuTorch's classes are not there, but for the tests of that engine.
tasks.withType<Test>().configureEach {
    systemProperty("clipstep.prepared", rootProject.file("../build/android").path)
    jvmArgs("-Xmx256m")
}
tasks.test {
    classpath -= executorchApi.output
    exclude("**/ExecuTorchTest*")
}
val executorchTest by tasks.registering(Test::class) {
    testClassesDirs = sourceSets.test.get().output.classesDirs
    classpath = sourceSets.test.get().runtimeClasspath
    include("**/ExecuTorchTest*")
}
tasks.check { dependsOn(executorchTest) }

dependencies {
    api(libs.serialization)
    compileOnly(libs.onnxruntime.desktop)
    compileOnly(executorchApi.output)

    testImplementation(libs.onnxruntime.desktop)
    testImplementation(executorchApi.output)
    testImplementation(libs.junit)
}
