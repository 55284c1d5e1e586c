import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    alias(libs.plugins.android.application)
    alias(libs.plugins.kotlin.serialization)
}

android {
    namespace = "clipstep.demo"
    compileSdk = libs.versions.compileSdk.get().toInt()

    defaultConfig {
        applicationId = "clipstep.demo"
        minSdk = libs.versions.minSdk.get().toInt()
        targetSdk = libs.versions.targetSdk.get().toInt()
        versionCode = 1
        versionName = libs.versions.app.get()
        // The processors that both engines have native libraries for.
        ndk { abiFilters += listOf("arm64-v8a", "x86_64") }
    }

    buildTypes {
        release {
            // The rules for the engines and for serialization come with clipstep-runtime and kotlinx.serialization.
            isMinifyEnabled = true
            isShrinkResources = true
            proguardFiles(getDefaultProguardFile("proguard-android-optimize.txt"))
        }
    }

    // Bundles that the app is to hold: put NAME.clipstep folders here.
    sourceSets["main"].assets.srcDir(rootProject.file("bundles"))

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_1_8
        targetCompatibility = JavaVersion.VERSION_1_8
    }

    testOptions {
        unitTests {
            isIncludeAndroidResources = true
            all {
                it.systemProperty("clipstep.prepared", rootProject.file("../build/android").path)
                it.jvmArgs("-Xmx2g", "--add-opens", "java.base/java.lang=ALL-UNNAMED", "--add-opens", "java.base/java.io=ALL-UNNAMED")
                it.jvmArgs("--add-opens", "java.base/java.util=ALL-UNNAMED", "--add-opens", "java.base/java.nio=ALL-UNNAMED")
            }
        }
    }
}

kotlin {
    compilerOptions {
        jvmTarget = JvmTarget.JVM_1_8
        allWarningsAsErrors = true
    }
}

// On a computer the tests run with onnxruntime for computers, and with the stand-in for ExecuTorch's classes.
configurations.matching { it.name.endsWith("UnitTestCompileClasspath") || it.name.endsWith("UnitTestRuntimeClasspath") }.configureEach {
    exclude(group = "com.microsoft.onnxruntime", module = "onnxruntime-android")
    exclude(group = "org.pytorch", module = "executorch-android")
}

dependencies {
    implementation(project(":clipstep-android"))
    implementation(libs.serialization)
    implementation(libs.onnxruntime.android)
    // The second engine adds its own native libraries; leave the line out for an app with onnxruntime alone.
    implementation(libs.executorch.android)

    testImplementation(project(":clipstep-runtime", configuration = "executorchApi"))
    testImplementation(libs.onnxruntime.desktop)
    testImplementation(libs.junit)
    testImplementation(libs.robolectric)
    testImplementation(libs.monitor)
}
