"""Names of AWS that its service models do not hold: services in signatures, and errors that any operation may answer."""

# Name in a signature's scope -> botocore's name.
SERVICES = {
    "autoscaling": "autoscaling",
    "cloudformation": "cloudformation",
    "ec2": "ec2",
    "eks": "eks",
    "elasticloadbalancing": "elbv2",
    "iam": "iam",
    "monitoring": "cloudwatch",
    "servicequotas": "service-quotas",
    "sns": "sns",
    "ssm": "ssm",
    "sts": "sts",
}

# What any service of AWS may answer: "Common error types" of the API references. JSON protocols append "Exception".
COMMON_JSON = {
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignatureException",
    "InternalFailure",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "NotAuthorized",
    "OptInRequired",
    "RequestExpired",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "ThrottlingException",
    "UnrecognizedClientException",
    "ValidationException",
}
# SSM is of the older JSON protocol, which has a word of its own for a failure inside.
COMMON_JSON_1_1 = COMMON_JSON | {"InternalServerError", "SerializationException", "UnknownOperationException"}
COMMON_QUERY = {
    "AccessDenied",
    "ExpiredToken",
    "IncompleteSignature",
    "InternalFailure",
    "InvalidAction",
    "InvalidClientTokenId",
    "InvalidParameterCombination",
    "InvalidParameterValue",
    "InvalidQueryParameter",
    "MalformedQueryString",
    "MissingAction",
    "MissingAuthenticationToken",
    "MissingParameter",
    "OptInRequired",
    "RequestExpired",
    "ServiceUnavailable",
    "SignatureDoesNotMatch",
    "Throttling",
    "ValidationError",
}
# EC2's model has no errors; these are of "Error codes for the Amazon EC2 API".
COMMON_EC2 = {
    "AuthFailure",
    "IdempotentParameterMismatch",
    "InsufficientInstanceCapacity",
    "InternalError",
    "InvalidAMIID.Malformed",
    "InvalidAMIID.NotFound",
    "InvalidAction",
    "InvalidInstanceID.NotFound",
    "InvalidLaunchTemplateId.Malformed",
    "InvalidLaunchTemplateId.NotFound",
    "InvalidLaunchTemplateId.VersionNotFound",
    "InvalidLaunchTemplateName.NotFoundException",
    "InvalidParameter",
    "InvalidParameterCombination",
    "InvalidParameterValue",
    "InvalidSubnetID.NotFound",
    "MissingParameter",
    "RequestExpired",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "Unavailable",
    "UnauthorizedOperation",
}
