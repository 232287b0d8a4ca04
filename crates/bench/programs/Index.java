// Reads the files named on standard input, up to an empty line, and keeps an index of their words.
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

public class Index {
    record Place(String file, int line, String before) {}

    public static void main(String[] arguments) throws Exception {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        Map<String, List<Place>> words = new HashMap<>();
        for (String name = input.readLine(); name != null && !name.isEmpty(); name = input.readLine()) {
            int number = 0;
            for (String line : Files.readAllLines(Path.of(name), StandardCharsets.ISO_8859_1)) {
                number++;
                String before = "";
                for (String word : line.split("\\W+")) {
                    words.computeIfAbsent(word, w -> new ArrayList<>()).add(new Place(name, number, before));
                    before = word;
                }
            }
        }
        System.out.println("ready");
        input.readLine();
        System.out.println(words.size());
    }
}
