// The panels of the page: a line each, in the order in which they stand in their place and are drawn.
import "./views.js";
import "./tools.js";
import "./stage.js";
import "./result.js";
import "./strip.js";
import "./facts.js";
import "./spectrum.js";
import "./caption.js";
import "./chart.js";
import "./scrub.js";
import "./words.js";
import "./compare.js";
import "./play.js";
import "./status.js";
import "./table.js";
import "./keys.js";
