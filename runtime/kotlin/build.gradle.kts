import org.jetbrains.kotlin.gradle.dsl.JvmTarget

// The library as a module of a Gradle build, such as android_demo. By itself it is built and tested by Maven: pom.xml.
plugins {
    alias(libs.plugins.kotlin.jvm)
    alias(libs.plugins.kotlin.serialization)
}

// A stand-in to compile against; not part of the library.
val executorchApi: SourceSet by sourceSets.creating { java.srcDir("executorch-api/src/main/java") }

java {
    sourceCompatibility = JavaVersion.VERSION_1_8
    targetCompatibility = JavaVersion.VERSION_1_8
}

kotlin {
    compilerOptions {
        jvmTarget = JvmTarget.JVM_1_8
        allWarningsAsErrors = true
        freeCompilerArgs.add("-Xjdk-release=1.8")
    }
}

dependencies {
    implementation(libs.serialization)
    compileOnly(libs.onnxruntime.desktop)
    compileOnly(executorchApi.output)
}
