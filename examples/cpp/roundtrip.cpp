// Audio to tokens and back, as it comes: float samples from standard input, and decoded ones to standard output.
#include "codec_stream.hpp"
#include <fstream>
#include <iostream>

int main(int count, char** arguments) try {
    if (count != 2) throw std::invalid_argument("usage: roundtrip FOLDER < samples.f32 > decoded.f32");
    auto manifest = nlohmann::json::parse(std::ifstream(std::string(arguments[1]) + "/export.json"));
    if (manifest.at("format") != 1) throw std::invalid_argument("this program reads exports of format 1");
    if (manifest["codec"]["channels"] != 1) throw std::invalid_argument("this program runs models of one channel");
    Ort::Env env;
    CodecStream encoder(env, manifest, arguments[1], "encoder"), decoder(env, manifest, arguments[1], "decoder");
    std::vector<char> block(manifest["parts"]["encoder"]["block_samples"].get<size_t>() * sizeof(float));
    for (size_t missing = 0; std::cin;) {
        std::cin.read(block.data(), block.size());
        missing += std::cin.gcount();
        std::fill(block.begin() + std::cin.gcount(), block.end(), 0); // completes the last block
        Signals audio{{"audio", std::cin.gcount() ? block : std::vector<char>()}};
        auto decoded = decoder.push(encoder.push(audio, !std::cin), !std::cin)["audio"];
        std::cout.write(decoded.data(), std::min(missing, decoded.size())).flush();
        missing -= std::min(missing, decoded.size());
    }
} catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
}
