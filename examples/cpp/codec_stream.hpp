// One half of a codec, with step graphs that `blazen-codec export` has written; for models of one channel.
#pragma once
#include <map>
#include <nlohmann/json.hpp>
#include <onnxruntime_cxx_api.h>
#include <span>
#include <string>
#include <vector>

using Signals = std::map<std::string, std::vector<char>>; // by name: "audio" as float, "codes_0", "codes_1" … as int64_t

class CodecStream {
public:
    CodecStream(Ort::Env& env, const nlohmann::json& manifest, const std::string& folder, const std::string& half)
        : env(env), folder(folder), part(manifest.at("parts").at(half)) {}

    Signals push(const Signals& more, bool is_last) { // gives the outputs of tiles that are complete, and at last of the rest
        Signals outputs;
        for (auto& [name, bytes] : more) pending[name].insert(pending[name].end(), bytes.begin(), bytes.end());
        auto tile = [&]() -> auto& { return part.at("stream").at(has_begun ? "step" : "begin"); };
        for (; blocks() >= tile()["blocks"]; has_begun = true) run(tile(), tile()["blocks"], outputs);
        auto& rest = has_begun ? part["stream"]["end"] : part["whole"];
        if (is_last && !rest.is_null() && blocks() >= rest["blocks"]) run(rest, blocks(), outputs);
        return outputs;
    }

private:
    Ort::Env& env;
    std::string folder;
    nlohmann::json part;
    Signals pending;
    std::map<std::string, Ort::Value> state;
    std::map<std::string, Ort::Session> sessions;
    bool has_begun = false;

    int64_t blocks() { // in what is pending
        auto input = part["block"].begin();
        return pending[input.key()].size() / (input->get<size_t>() * (input.key() == "audio" ? sizeof(float) : sizeof(int64_t)));
    }

    void run(const nlohmann::json& graph, int64_t blocks, Signals& outputs) {
        auto path = folder + "/" + graph["file"].get<std::string>();
        auto& session = sessions.try_emplace(path, env, path.c_str(), Ort::SessionOptions()).first->second;
        std::vector<const char*> names, results;
        std::vector<Ort::Value> inputs;
        for (auto& input : graph["inputs"]) {
            names.push_back(input["name"].get_ref<const std::string&>().c_str());
            auto kept = state.extract(names.back());
            inputs.push_back(kept ? std::move(kept.mapped()) : new_input(graph, input, blocks));
        }
        for (auto& output : graph["outputs"]) results.push_back(output["name"].get_ref<const std::string&>().c_str());
        auto values = session.Run(Ort::RunOptions(), names.data(), inputs.data(), names.size(), results.data(), results.size());
        for (size_t number = 0; number < values.size(); ++number) {
            std::string name = results[number];
            auto bytes = bytes_of(values[number]);
            if (name.rfind("next.", 0) == 0) state.emplace("state." + name.substr(5), std::move(values[number]));
            else outputs[name].insert(outputs[name].end(), bytes.begin(), bytes.end());
        }
    }

    Ort::Value new_input(const nlohmann::json& graph, const nlohmann::json& input, int64_t blocks) {
        std::string name = input["name"];
        int64_t length = blocks * part["block"].value(name, 0); // of the axis that varies
        for (auto& noise : graph["noise"])
            if (noise["name"] == name) length = blocks * noise["slope"].get<int64_t>() + noise["offset"].get<int64_t>();
        std::vector<int64_t> shape;
        for (auto& axis : input["shape"]) shape.push_back(axis.is_number() ? axis.get<int64_t>() : length);
        auto type = input["dtype"] == "int64" ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
        auto value = Ort::Value::CreateTensor(Ort::AllocatorWithDefaultOptions(), shape.data(), shape.size(), type);
        auto bytes = bytes_of(value);
        std::fill(bytes.begin(), bytes.end(), 0); // noise of zeros is none
        if (name == "num_codebooks") *value.GetTensorMutableData<int64_t>() = part["block"].size();
        if (auto source = pending.find(name); source != pending.end()) {
            std::copy_n(source->second.begin(), bytes.size(), bytes.begin());
            source->second.erase(source->second.begin(), source->second.begin() + bytes.size());
        }
        return value;
    }

    static std::span<char> bytes_of(Ort::Value& value) {
        auto info = value.GetTensorTypeAndShapeInfo();
        bool is_code = info.GetElementType() == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
        size_t size = info.GetElementCount() * (is_code ? sizeof(int64_t) : sizeof(float));
        return {static_cast<char*>(value.GetTensorMutableRawData()), size};
    }
};
